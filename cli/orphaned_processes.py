"""Ends processes launched by Lightning if their launcher dies before the process group is set up."""

import os
import sys
import threading
import time

import torch.distributed as dist

LAUNCHER = "FULGURITE_LAUNCHER"
"""Environment variable: the id of the process that launched this one."""


def end_with_launcher() -> None:
    """In a launched process, watch until the process group is set up; in any other, set the variable.

    At the start, a process waits half an hour for the first one, and does not notice if it was killed. After
    that, a broken connection ends it. torchrun and SLURM handle this themselves.
    """
    launcher = os.environ.get(LAUNCHER)
    if "LOCAL_RANK" not in os.environ or launcher is None:
        os.environ[LAUNCHER] = str(os.getpid())
    elif launcher != str(os.getpid()) and (str(os.getppid()) == launcher or not _runs(launcher)):
        threading.Thread(target=_watch, args=(launcher,), daemon=True).start()


def _runs(launcher: str) -> bool:
    """Whether the process of this id lives; then it is an ancestor, and another has launched this one."""
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
