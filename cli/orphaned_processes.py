"""Processes that Lightning launches end, when the one that launched them has died before they have met."""

import os
import sys
import threading
import time

import torch.distributed as dist

LAUNCHER = "FULGURITE_LAUNCHER"
"""In the environment: the number of the process that launched this one."""


def end_with_launcher() -> None:
    """Watch, in a launched process, until it has met the others; in any other, say who launches.

    A process waits half an hour for the first one at the start, and does not see that it was killed. From
    then on, a connection that breaks ends it. Under torchrun and SLURM, they see to it themselves.
    """
    launcher = os.environ.get(LAUNCHER)
    if "LOCAL_RANK" not in os.environ or launcher is None:
        os.environ[LAUNCHER] = str(os.getpid())
    elif launcher != str(os.getpid()) and (str(os.getppid()) == launcher or not _runs(launcher)):
        threading.Thread(target=_watch, args=(launcher,), daemon=True).start()


def _runs(launcher: str) -> bool:
    """Whether this process is there; it is further up, then, and another has launched this one."""
    try:
        os.kill(int(launcher), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _watch(launcher: str) -> None:
    while not dist.is_initialized():
        if str(os.getppid()) != launcher:
            print("error: the process that launched this one has ended", file=sys.stderr, flush=True)
            os._exit(1)
        time.sleep(0.5)
