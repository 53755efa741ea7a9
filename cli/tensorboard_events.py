"""TensorBoard events of a run, cut back to its checkpoint when it is resumed: each step is there once."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter

FILES = "events.out.tfevents.*"


class Events(TensorBoardLogger):
    """Writes a run's events into its folder, which is not touched before the first event.

    Args:
        folder: the run's.
        lengths: of a resumed run, how many bytes of each file belong to its checkpoint, see `lengths()`; the
            rest, and other event files, were written after that checkpoint, and are removed.
        step: the global step of that checkpoint.
    """

    def __init__(self, folder: Path, *, lengths: object = None, step: int = -1):
        # purge_step tells a running TensorBoard which events to drop
        super().__init__(folder, name="", version="", purge_step=step + 1)
        self._lengths = lengths if isinstance(lengths, dict) else None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir, self._begin, **self._kwargs)
        return self._experiment

    def lengths(self) -> dict[str, int]:
        """The length of each event file, in bytes, after a flush."""
        self.experiment.flush()
        return {file.name: file.stat().st_size for file in _files(Path(self.log_dir))}

    @rank_zero_only
    def save(self) -> None:
        """Flush events to the disk."""
        if self._experiment is not None:
            super().save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the writer; where a run has failed, perhaps on a full disk, its own error is reported."""
        with contextlib.suppress(*([OSError] if status == "failed" else [])):
            super().finalize(status)

    def _begin(self) -> None:
        if self._lengths is not None:
            _cut(Path(self.log_dir), self._lengths)
        self._lengths = None
        _wait_for_order(Path(self.log_dir))


class _Writer(SummaryWriter):
    """Creates its file at the first event: Lightning asks for a writer in any case."""

    def __init__(self, folder: str, begin: Callable[[], None], **how: Any):
        self._begin, self._is_made = begin, False
        super().__init__(folder, **how)
        self._is_made = True

    def _get_file_writer(self) -> Any:
        if not self._is_made:
            return None
        if self.file_writer is None:
            self._begin()
        return super()._get_file_writer()


def _cut(folder: Path, lengths: Mapping[str, Any]) -> None:
    for file in _files(folder):
        if not isinstance(length := lengths.get(file.name), int) or length < 0:
            file.unlink()
        elif file.stat().st_size > length:
            os.truncate(file, length)


def _wait_for_order(folder: Path) -> None:
    """Make sure that a new file is read last: names begin with the time in seconds."""
    newest, ends = max((file.name for file in _files(folder)), default=""), time.monotonic() + 2
    while newest >= f"{FILES[:-1]}{int(time.time()):010d}." and time.monotonic() < ends:
        time.sleep(0.05)


def _files(folder: Path) -> list[Path]:
    """The files that are not links: a link's target is not the run's."""
    return [file for file in folder.glob(FILES) if file.is_file() and not file.is_symlink()]
