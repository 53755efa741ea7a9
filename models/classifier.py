"""The one LightningModule for classification: a network, a loss, an optimiser and metrics."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from fulgurite.models.losses import Loss, Plain

Batch = Sequence[Tensor]  # images in [0, 1] and labels; default_collate gives a list, our own sets a tuple


class Classifier(pl.LightningModule):
    """Trains a network to tell classes apart; logs `train/loss`, and loss and accuracy on `val` and `test`.

    The learning rate rises over the first tenth of the run and falls along a cosine to zero. Weight decay
    spares biases and normalisation.

    Args:
        network: maps images in [0, 1] to logits.
        classes: how many.
        loss: what a batch teaches.
        optimizer: "adamw", or "sgd" with Nesterov momentum 0.9.
        lr: the highest learning rate.
        weight_decay: of the weights that have more than one dimension.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: int,
        loss: Loss | None = None,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 0.01,
    ):
        super().__init__()
        if optimizer not in ("adamw", "sgd"):
            raise ValueError(f'optimizer={optimizer!r}; wanted "adamw" or "sgd"')
        self.network = network
        self.loss = loss or Plain()
        self.optimizer, self.lr, self.weight_decay = optimizer, lr, weight_decay
        self.accuracies = nn.ModuleDict(
            {f"{stage} accuracy": MulticlassAccuracy(classes, average="micro") for stage in ("val", "test")}
        )

    @property
    def network_to_probe(self) -> nn.Module:
        """What probes look at; layers are named from here."""
        return self.network

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits."""
        return self.network(images)

    def training_step(self, batch: Batch, _: int) -> Float[Tensor, ""]:
        """The loss of a batch."""
        images, labels = batch
        loss = self.loss(self.network, images, labels)
        self.log("train/loss", loss, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Loss and accuracy on validation images."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, _: int) -> None:
        """Loss and accuracy on test images."""
        self._evaluate(batch, "test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW or SGD, with warm-up and cosine."""
        groups = [
            {"params": list(self._parameters_of(False))},
            {"params": list(self._parameters_of(True)), "weight_decay": 0.0},
        ]
        if self.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, self.lr, weight_decay=self.weight_decay)
        else:
            optimizer = torch.optim.SGD(groups, self.lr, 0.9, weight_decay=self.weight_decay, nesterov=True)
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            return {"optimizer": optimizer}
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, int(steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _evaluate(self, batch: Batch, stage: str) -> None:
        images, labels = batch
        logits = self(images)
        accuracy = self.accuracies[f"{stage} accuracy"]
        assert isinstance(accuracy, MulticlassAccuracy)
        accuracy.update(logits, labels)
        self.log(f"{stage}/loss", F.cross_entropy(logits, labels), batch_size=len(images), sync_dist=True)
        self.log(f"{stage}/accuracy", accuracy, batch_size=len(images), prog_bar=True)

    def _parameters_of(self, spared: bool) -> Iterator[nn.Parameter]:
        return (p for p in self.parameters() if p.requires_grad and (p.dim() < 2) == spared)


def warm_cosine(step: int, steps: int, *, warmup: float = 0.1) -> float:
    """The factor of the learning rate: up in a line over the first part, then down along a cosine to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))
