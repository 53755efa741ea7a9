"""Which boards a Trainer has: those of its loggers, or a plain folder."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from fulgurite.callbacks.boards.board import Board
from fulgurite.callbacks.boards.folder import Folder
from fulgurite.callbacks.boards.mlflow import MLflow
from fulgurite.callbacks.boards.tensorboard import TensorBoard
from fulgurite.callbacks.boards.weights_and_biases import WeightsAndBiases


def boards_of(trainer: pl.Trainer) -> list[Board]:
    """A board for each logger that can take pictures; where there is none, a folder.

    The folder is `probes` in the folder of a CSVLogger, or else the next number in `probes` below the
    Trainer's `default_root_dir`. Only the first process has boards; a `fast_dev_run` has none, as it writes
    nothing.
    """
    if not trainer.is_global_zero or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
        return []
    found = [board for logger in trainer.loggers if (board := _board(logger)) is not None]
    return found or [Folder(_folder(trainer))]


def _board(logger: object) -> Board | None:
    if isinstance(logger, TensorBoardLogger):
        return TensorBoard(logger.experiment, Path(logger.log_dir))
    if isinstance(logger, WandbLogger):
        return WeightsAndBiases(logger)
    if isinstance(logger, MLFlowLogger):
        return MLflow(logger)
    return None


def _folder(trainer: pl.Trainer) -> Path:
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            return Path(logger.log_dir) / "probes"
    root = Path(trainer.default_root_dir) / "probes"
    numbers = [int(path.name) for path in root.glob("*") if path.name.isdecimal()]
    return root / str(max(numbers, default=-1) + 1)
