"""Errors before the first training batch, reported in one sentence."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from fulgurite.cli.errors import mistakes
from fulgurite.models.weights import read as read_weights


class Started(pl.Callback):
    """Records whether anything has been trained or evaluated."""

    started = False

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """It has."""
        self.started = True

    on_train_start = on_validation_start = on_test_start = on_sanity_check_start


@contextlib.contextmanager
def starting(trainer: pl.Trainer, checkpoint: Path | None = None) -> Iterator[None]:
    """Errors before the first batch become a ValueError that names the checkpoint.

    Raises:
        ValueError: Lightning cannot begin with its arguments, or refuses it later.
    """
    try:
        yield
    except mistakes():
        raise
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        callbacks: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        begun = [callback for callback in callbacks if isinstance(callback, Started)]
        if not begun or begun[0].started:
            raise
        what = f"{checkpoint} is no checkpoint to resume from" if checkpoint else "nothing can begin"
        raise ValueError(f"{what}: {type(error).__name__}: {error}") from error


def progress(checkpoint: Path) -> tuple[int, int] | None:
    """The epoch, from 0, and the step that a training's checkpoint was written after; None for bare weights.

    Raises:
        ValueError: it cannot be read, or their values are invalid.
    """
    read_weights(checkpoint)
    if checkpoint.suffix == ".safetensors":
        return None
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if not {"epoch", "global_step", "loops", "pytorch-lightning_version"} <= {*content}:
        return None
    reached = content["epoch"], content["global_step"]
    if not all(isinstance(number, int) and 0 <= number < 2**53 for number in reached):
        raise ValueError(
            f"{checkpoint} is damaged: it was written after epoch {reached[0]!r}, step {reached[1]!r}"
        )
    return reached
