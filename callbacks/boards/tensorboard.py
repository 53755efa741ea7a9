"""What a probe can log to TensorBoard: pictures, scalars, histograms, tables."""

import copy
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jaxtyping import Float
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from fulgurite.probes.render import RGB, encoded, write

FRAME = 16  # bytes around an event in the file


@dataclass
class Board:
    """Where things are pinned: a run's one TensorBoard writer, and a folder for pictures if one is wanted."""

    writer: SummaryWriter
    folder: Path
    pictures: Path | None = None


class Artifact(ABC):
    """Something that can be pinned."""

    @abstractmethod
    def pin(self, board: Board, tag: str, step: int) -> None:
        """Write it under `tag` at `step`."""


@dataclass(frozen=True)
class Picture(Artifact):
    """A picture, 8-bit RGB."""

    pixels: RGB

    def pin(self, board: Board, tag: str, step: int) -> None:
        """Write it as PNG where it is small or has few colours, as JPEG where that would take megabytes."""
        image = Summary.Image(
            height=self.pixels.shape[1],
            width=self.pixels.shape[2],
            colorspace=3,
            encoded_image_string=self.encoded(),
        )
        # add_image encodes a hundred times slower; the file writer is the only one that may write to a run
        board.writer._get_file_writer().add_summary(
            Summary(value=[Summary.Value(tag=tag, image=image)]), step
        )
        if board.pictures is not None:
            board.pictures.mkdir(parents=True, exist_ok=True)
            write(self.pixels, board.pictures / f"{tag.replace('/', '_')}.png")

    def encoded(self) -> bytes:
        """The bytes of the file."""
        some = self.pixels.flatten(1)[:, :: max(1, self.pixels[0].numel() // 2**14)]
        drawn = self.pixels[0].numel() <= 2**20 or some.unique(dim=1).shape[1] <= 2**10
        return encoded(self.pixels, how="PNG" if drawn else "JPEG")


@dataclass(frozen=True)
class Scalar(Artifact):
    """A number."""

    value: float | Float[Tensor, ""]

    def pin(self, board: Board, tag: str, step: int) -> None:
        """Write it as a scalar."""
        board.writer.add_scalar(tag, float(self.value), step)


@dataclass(frozen=True)
class Histogram(Artifact):
    """Many numbers; those that are not finite are left out."""

    values: Float[Tensor, "..."]

    def pin(self, board: Board, tag: str, step: int) -> None:
        """Write it as a histogram, if any number is finite."""
        values = self.values.detach().float().flatten()
        if len(values := values[values.isfinite()]):
            board.writer.add_histogram(tag, values.cpu().numpy(), step)


@dataclass(frozen=True)
class Table(Artifact):
    """Rows of text under a head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def pin(self, board: Board, tag: str, step: int) -> None:
        """Write it as a Markdown table."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
        board.writer.add_text(tag, "\n".join("| " + " | ".join(line) + " |" for line in cells), step)


def require_board(trainer: pl.Trainer) -> None:
    """Check that there is somewhere to pin to.

    Raises:
        ValueError: the trainer has no TensorBoard logger.
    """
    if not trainer.fast_dev_run and _logger(trainer) is None:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            "the probes pin to TensorBoard, but the Trainer has no TensorBoardLogger; "
            'give it one: Trainer(logger=TensorBoardLogger("runs"), ...)'
        )


def board_of(trainer: pl.Trainer, pictures: Path | None = None) -> Board | None:
    """The board of a run; None on processes but the first, and in a fast_dev_run, which writes nothing."""
    if not trainer.is_global_zero or (logger := _logger(trainer)) is None:
        return None
    return Board(logger.experiment, Path(logger.log_dir), pictures)


def _logger(trainer: pl.Trainer) -> TensorBoardLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def pin(board: Board, artifacts: Mapping[str, Artifact], step: int) -> None:
    """Pin each under its tag, and see that it reaches the disk; the events are written all together or not.

    Raises:
        OSError: the disk is full; what was written of the events is taken back.
    """
    staging = _Staging(board.folder)
    staged = copy.copy(board.writer)
    staged.file_writer, staged.all_writers = staging, {staging.get_logdir(): staging}  # pyright: ignore[reportAttributeAccessIssue]
    for tag, artifact in artifacts.items():
        artifact.pin(replace(board, writer=staged), tag, step)
    _write(board.writer, staging.events)


class _Staging(FileWriter):
    """Keeps events instead of writing them."""

    def __init__(self, folder: Path):
        self.folder, self.events = folder, list[Event]()

    def get_logdir(self) -> str:
        return str(self.folder)

    def add_event(self, event: Event, step: int | None = None, walltime: float | None = None) -> None:
        event.wall_time = time.time() if walltime is None else walltime
        if step is not None:
            event.step = int(step)
        self.events.append(event)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _write(writer: SummaryWriter, events: Sequence[Event]) -> None:
    writer.flush()
    own: Any = writer._get_file_writer()
    file = Path(own.event_writer._file_name)
    before = file.stat().st_size
    _reserve(file.parent, sum(event.ByteSize() + FRAME for event in events))
    try:
        for event in events:
            own.add_event(event, walltime=event.wall_time)
        writer.flush()
    except Exception:
        # half an event would hide all later ones, and the thread that writes has ended: begin another file
        os.truncate(file, before)
        writer.file_writer = writer.all_writers = None
        raise


def _reserve(folder: Path, size: int) -> None:
    """See that so many bytes fit on the disk, before any of them is written.

    Raises:
        OSError: they do not.
    """
    if not size or not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)
