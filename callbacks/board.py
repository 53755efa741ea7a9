"""What can be pinned to TensorBoard: pictures, scalars, histograms, tables."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
from jaxtyping import Float
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fulgurite.probes.render import RGB, encoded, write


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
    """Pin each under its tag, and see that it reaches the disk."""
    for tag, artifact in artifacts.items():
        artifact.pin(board, tag, step)
    board.writer.flush()
