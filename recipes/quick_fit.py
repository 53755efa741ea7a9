"""Short trainings that write nothing, for comparing recipes."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

import lightning.pytorch as pl
import torch
from jaxtyping import Bool
from torch import Tensor

from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.recipes.recipe import Recipe


@dataclass(frozen=True)
class QuickFit:
    """Which images were classified correctly, in order, and the seconds that training took."""

    right: Bool[Tensor, "n"]
    seconds: float

    @property
    def accuracy(self) -> float:
        """The share of them."""
        return float(self.right.double().mean())


def quick_fit(recipe: Recipe, *, part: Literal["val", "test"] = "val") -> QuickFit:
    """Train as the command would, without probes and checkpoints, and measure the last weights.

    So the images measured on have no influence on the choice of weights.
    """
    with quiet():
        trainer = pl.Trainer(
            max_epochs=recipe.epochs,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=list(recipe.callbacks),
        )
        started = perf_counter()
        trainer.fit(recipe.model, recipe.data)
        seconds = perf_counter() - started
    with frozen_eval(recipe.network) as net, torch.no_grad():
        device = device_of(net)
        loader = recipe.data.test_dataloader() if part == "test" else recipe.data.val_dataloader()
        right = [net(images.to(device)).argmax(1).cpu() == labels for images, labels in loader]
    return QuickFit(torch.cat(right), seconds)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's messages, which would be repeated for every trial."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in (
            r"`isinstance\(treespec, LeafSpec\)` is deprecated",
            ".*does not have many workers which may be a bottleneck",
            "The number of training batches .* is smaller than the logging interval",
        ):
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
