"""Early ends of a run by signals and full disks, with a message on how to resume."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info

from fulgurite.cli.errors import Ended
from fulgurite.probes.atomic import write_atomic
from fulgurite.recipes.plain_values import read_json

JOB = "job.json"


class Signals(pl.Callback):
    """Ends training at once on SIGTERM, in all processes; on SLURM's signal, after the job is queued again.

    Lightning would wait for the end of a batch, or of a long probe, end with status 0 as if all were done,
    write a checkpoint from within an epoch, and have processes wait for each other.
    """

    def __init__(self):
        self._trainer: pl.Trainer | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block, signals end the run."""
        if threading.current_thread() is not threading.main_thread():  # only it receives signals
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in (*self._handlers(), signal.SIGCHLD)}
        self._listen()
        try:
            yield
        finally:
            self._trainer = None
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Know the other processes."""
        self._trainer = trainer

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Install the handlers again: from here on, Lightning handles signals too."""
        self._listen()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """The same where there is no sanity check."""
        self._listen()

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for signum, handler in self._handlers().items():
            signal.signal(signum, handler)

    def _handlers(self) -> dict[int, Callable[[int, FrameType | None], None]]:
        own: dict[int, Callable[[int, FrameType | None], None]] = {signal.SIGTERM: self._end}
        requeued = SLURMEnvironment().requeue_signal if SLURMEnvironment.detect() else None
        return own if requeued is None else {**own, requeued: self._requeue}

    def _end(self, signum: int, _: FrameType | None) -> None:
        launcher = None if self._trainer is None else self._trainer.strategy.launcher
        if launcher is not None and hasattr(launcher, "kill"):
            launcher.kill(signum)
        # a loader's workers may be ended, too: torch would raise an error for each in place of this
        # one, and it would be taken for an error of a probe, after which training goes on
        signal.signal(signal.SIGCHLD, lambda *_: None)
        raise Ended(signum)

    def _requeue(self, signum: int, frame: FrameType | None) -> None:
        if int(os.environ.get("SLURM_PROCID", 0)) == 0:
            rank_zero_info(f"job {_job()} is queued again")
            subprocess.run(["scontrol", "requeue", str(_job())], check=False)
        self._end(signum, frame)


@contextlib.contextmanager
def explained(folder: Path, again: Callable[..., str]) -> Iterator[None]:
    """Within the block, errors that end a run early tell how to resume it, by `again`.

    Raises:
        Ended: by a signal, or Ctrl-C.
        OSError: there is no space left.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Ended(signal.SIGINT, f"ended by SIGINT; {again()}") from None
    except Ended as end:
        raise Ended(end.signum, f"{end}; {again()}") from None
    except SystemExit as end:  # so Lightning ends after Ctrl-C
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        raise Ended(signal.SIGINT, f"ended by SIGINT; {again()}") from None
    except Exception as error:
        if not is_full(error):
            raise
        raise OSError(f"there is no space left for {folder}: free some; {again(full=True)}") from error


def is_full(error: BaseException | None) -> bool:
    """Whether the error is caused by a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def note_job(folder: Path, words: Sequence[str]) -> None:
    """Record in a run's folder which job of SLURM trains it, if one does."""
    if (job := _job()) is not None:
        write_atomic(folder / JOB, json.dumps({"job": job, "words": list(words)}) + "\n")


def requeued(root: Path, words: Sequence[str], folder: str | None) -> Path | None:
    """The folder of the run that this job trained with the same words before SLURM queued it again."""
    if (job := _job()) is None or os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    places = [Path(folder)] if folder else sorted(root.glob("*"))
    for place in places:
        try:
            noted = read_json(place / JOB)
        except ValueError:
            continue
        if noted == {"job": job, "words": list(words)}:
            return place
    return None


def _job() -> str | None:
    """As `scontrol` takes it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', 0)}"
    return os.environ.get("SLURM_JOB_ID")
