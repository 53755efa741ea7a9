"""TensorBoard as a board: the events of one call are written all together or not at all."""

import copy
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from fulgurite.callbacks.boards.module_graph import graph_def
from fulgurite.callbacks.boards.projector import write_embedding
from fulgurite.callbacks.framework.artifacts import (
    Artifact,
    Embedding,
    Graph,
    Histogram,
    Picture,
    Scalar,
    Table,
    Text,
)

FRAME = 16  # bytes around an event in the file


@dataclass
class TensorBoard:
    """A run's one TensorBoard writer, and its folder."""

    writer: SummaryWriter
    folder: Path

    def log(self, artifacts: Mapping[str, Artifact], step: int) -> None:
        """Write each under its tag, and flush to the disk; all events together or none.

        Raises:
            OSError: the disk is full; events that were already written are removed.
        """
        staging = _Staging(self.folder)
        staged = copy.copy(self.writer)
        staged.file_writer, staged.all_writers = staging, {staging.get_logdir(): staging}  # pyright: ignore[reportAttributeAccessIssue]
        for tag, artifact in artifacts.items():
            _add(staged, self.folder, tag, artifact, step)
        _write(self.writer, staging.events)

    def where(self) -> str:
        """The command that serves it."""
        return (
            f"to watch: tensorboard --logdir {self.folder} --samples_per_plugin images=500   "
            "(without it, ten are kept)"
        )


@contextmanager
def tensorboard(folder: Path) -> Iterator[TensorBoard]:
    """A board whose events lie in the folder itself; it is closed at the end of the block."""
    logger = TensorBoardLogger(folder, name="", version="")
    try:
        yield TensorBoard(logger.experiment, folder)
    finally:
        logger.experiment.close()


def _add(writer: SummaryWriter, folder: Path, tag: str, artifact: Artifact, step: int) -> None:
    if isinstance(artifact, Picture):
        _, height, width = artifact.pixels.shape
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=artifact.encoded()
        )
        # add_image encodes a hundred times slower; the file writer is the only one that may write to a run
        writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
    elif isinstance(artifact, Scalar):
        writer.add_scalar(tag, float(artifact.value), step)
    elif isinstance(artifact, Histogram):
        if len(values := artifact.finite()):
            writer.add_histogram(tag, values.numpy(), step)
    elif isinstance(artifact, Table):
        writer.add_text(tag, artifact.markdown(), step)
    elif isinstance(artifact, Text):
        writer.add_text(tag, "\n".join(f"    {line}" for line in artifact.lines.splitlines()), step)
    elif isinstance(artifact, Embedding):
        write_embedding(folder, artifact, tag, step)
    elif isinstance(artifact, Graph):
        # add_graph runs the network, through TorchScript
        graph = graph_def(artifact).SerializeToString()
        writer._get_file_writer().add_event(Event(graph_def=graph), step)


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
        # half an event would hide all later ones, and the writer thread has ended: start another file
        os.truncate(file, before)
        writer.file_writer = writer.all_writers = None
        raise


def _reserve(folder: Path, size: int) -> None:
    """Check that this many bytes fit on the disk, before any of them is written.

    Raises:
        OSError: they do not.
    """
    if not size or not hasattr(os, "posix_fallocate"):
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)
