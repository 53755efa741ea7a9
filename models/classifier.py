"""The LightningModule for classification: a network, a loss, an optimizer and metrics."""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.aggregation import MeanMetric

from fulgurite.models.batch_checks import BatchChecks
from fulgurite.models.finetuning import Finetuning, Schedule, Table
from fulgurite.models.given import given_arguments
from fulgurite.models.losses import Growing, Loss, Plain
from fulgurite.models.min_max import check_replays
from fulgurite.models.mixup_cutmix import check_mixes, mixed, mixing_of
from fulgurite.models.task_heads import (
    as_classes,
    check_arguments,
    losses,
    metrics_of,
    stays_correct,
    training_loss,
)
from fulgurite.probes.attacks.ensembles import Attack, run_default_attack
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.robustness.evaluate import evaluate
from fulgurite.probes.tasks import Task, two_sided

HALF = ("16-mixed", "bf16-mixed", "16-true", "bf16-true")
Batch = Sequence[Tensor]  # images in [0, 1] and labels; default_collate gives a list, our own sets a tuple
ATTACKS: Mapping[str, Attack] = {
    "val": partial(run_default_attack, steps=10),
    "test": partial(run_default_attack, steps=20),
}
"""The attacks on validation and test images; random starts depend only on the images."""


class Classifier(pl.LightningModule):
    """Trains a network to classify images; logs `train/loss`, and loss and accuracy on `val` and `test`.

    A task of one logit, of several labels for an image, or of values: see `task`.

    Given a threat, also the `robust accuracy`: the share of the images that are classified correctly both
    clean and under attack. The learning rate rises over the first tenth of the run and falls along a cosine
    to zero. Biases and normalisation have no weight decay.

    A checkpoint holds the arguments that are plain values, so that `Classifier.load_from_checkpoint(FILE,
    network=network)` restores the model; loss, threat, attacks and table must be passed again, too.

    Args:
        network: maps images in [0, 1] to logits.
        classes: how many; 2 of one logit; labels or outputs, for such tasks.
        task: "multiclass"; "binary" for one logit, whose sigmoid is the probability of class 1; "multilabel"
            for labels [n, k] of 0 and 1, each with a logit: logs `accuracy` over all decisions and `exact
            match`, and an image is robust if all its labels are; or "regression" of values: mean square
            error, and logs `mean absolute error`.
        loss: the training loss; mixed images, as by a data module's `mixing`, need the default or a
            `Weighted` one.
        optimizer: "adamw", or "sgd" with Nesterov momentum 0.9.
        lr: the highest learning rate.
        weight_decay: of the weights that have more than one dimension.
        threat: within which robust accuracy is measured; it is not without one.
        robust_images: how many validation images it is measured on, equally many of each class, the first
            ones; all without it. Of the test images, always all.
        attacks: for robust accuracy: PGD of 10 steps on "val" and of 20 on "test", by default.
        table: which parts of the network learn, how fast, and from which epoch on: see `Finetuning`, which
            this module then adds to the Trainer. Without it, every parameter with a gradient has the same
            rate.
        seed: if given, the random draws of each step (dropout, random starts) depend only on it, the epoch,
            the step and the process, so that a resumed run draws the same.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        classes: int,
        task: Task = "multiclass",
        loss: Loss | None = None,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        threat: Threat | None = None,
        attacks: Mapping[str, Attack] | None = None,
        robust_images: int | None = None,
        table: Table | Schedule | None = None,
        seed: int | None = None,
    ):
        super().__init__()
        if optimizer not in ("adamw", "sgd"):
            raise ValueError(f'optimizer={optimizer!r}; wanted "adamw" or "sgd"')
        if not (0 < lr < math.inf and 0 <= weight_decay < math.inf):
            raise ValueError(
                f"lr={lr}, weight_decay={weight_decay}; wanted a finite learning rate above 0, and a weight "
                "decay of at least 0"
            )
        attacks = ATTACKS if attacks is None else attacks
        if attacks.keys() != ATTACKS.keys():
            raise ValueError(
                f'attacks for {", ".join(attacks) or "nothing"}; wanted one for "val", one for "test"'
            )
        check_arguments(task, classes, loss or Plain(), threat, robust_images)
        plain = {"classes": classes, "task": task, "optimizer": optimizer, "lr": lr, "seed": seed}
        plain |= {"weight_decay": weight_decay, "robust_images": robust_images}
        self.save_hyperparameters(given_arguments() or plain)
        self.network = network
        self.task: Task = task
        self.loss = loss or Plain()
        self.optimizer, self.lr, self.weight_decay = optimizer, lr, weight_decay
        self.threat, self.attacks, self.seed = threat, attacks, seed
        self.classes, self.robust_images = classes, robust_images
        self._checks = BatchChecks(task, classes)
        self._attacked = torch.zeros(classes, dtype=torch.long)
        self.finetuning = None if table is None else Finetuning(network, table)
        self.accuracies = nn.ModuleDict(
            {
                f"{stage} {kind}": metric
                for stage in ATTACKS
                for kind, metric in metrics_of(task, classes).items()
            }
        )
        # Lightning's own mean rounds the number of images of each process, where it is not equal
        self.losses = nn.ModuleDict({stage: MeanMetric(nan_strategy="disable") for stage in ATTACKS})

    @property
    def network_to_probe(self) -> nn.Module:
        """What probes look at; layers are named from here."""
        return self.network

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The logits."""
        return self.network(images)

    def train(self, mode: bool = True) -> "Classifier":
        """Training mode, or eval; what is frozen stays in eval."""
        super().train(mode)
        if self.finetuning is not None:
            self.finetuning.hold()
        return self

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002
        """Use channels-last memory format on a GPU in 16-bit precision, for its tensor cores."""
        if self.trainer.strategy.root_device.type == "cuda" and str(self.trainer.precision) in HALF:
            self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def on_fit_start(self) -> None:
        """Check that the images can be mixed as the data module asks."""
        check_mixes(mixing_of(self.trainer), self.loss, self.task)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Seed the step's draws again, if there is a seed."""
        if self.seed is not None:
            place = f"{self.seed} {self.current_epoch} {batch_idx} {self.global_rank}"
            torch.manual_seed(zlib.crc32(place.encode()))

    def on_train_epoch_start(self) -> None:
        """Forget what the loss keeps from batch to batch."""
        check_replays(self.loss, self.trainer.accumulate_grad_batches)
        if hasattr(self.loss, "restart"):
            self.loss.restart()  # pyright: ignore[reportAttributeAccessIssue]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, or as many on the same batch as the loss has `replays`."""
        for _ in range(getattr(self.loss, "replays", 1)):
            super().optimizer_step(*args, **kwargs)

    def training_step(self, batch: Batch, _: int) -> Float[Tensor, ""]:
        """The loss of a batch."""
        images, labels = batch
        kinds = mixing_of(self.trainer)
        with self._checks.training(self.network, images, labels):
            shown = mixed(images, labels, kinds, classes=self.classes) if kinds else (images, labels)
            loss = training_loss(self._due(), self.network, *shown, self.task)
        self.log("train/loss", loss, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Loss and accuracy on validation images."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, _: int) -> None:
        """Loss and accuracy on test images; of validation images, so named, if there are no others."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self._evaluate(batch, "test", shown=getattr(data, "tested_on", "test"))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW or SGD, with warm-up and cosine."""
        groups, how = self.parameter_groups(), dict[str, Any](weight_decay=self.weight_decay)
        # one kernel for all parameters; Lightning cannot clip gradients that a scaler of 16 bits has scaled
        if self.trainer.strategy.root_device.type == "cuda" and str(self.trainer.precision) != "16-mixed":
            how["fused"] = True
        if self.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, self.lr, **how)
        else:
            optimizer = torch.optim.SGD(groups, self.lr, 0.9, nesterov=True, **how)
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            return {"optimizer": optimizer}
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, int(steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_callbacks(self) -> list[pl.Callback]:
        """Fine-tuning, if there is a table."""
        here = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        return [] if self.finetuning is None or self.finetuning in here else [self.finetuning]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups: with and without weight decay; or those of fine-tuning."""
        if self.finetuning is not None:
            return self.finetuning.groups(self.lr, weight_decay=self.weight_decay)
        return [
            {"params": list(self._parameters_of(False))},
            {"params": list(self._parameters_of(True)), "weight_decay": 0.0},
        ]

    def _due(self) -> Loss:
        """The loss as it is at this point of the training."""
        if not (isinstance(self.loss, Growing) and self.loss.warmup):
            return self.loss
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < math.inf:
            raise ValueError(
                f"warmup={self.loss.warmup} is a share of a training that has no end; say max_epochs or "
                "max_steps"
            )
        return self.loss.at(self.trainer.global_step / steps)

    def _evaluate(self, batch: Batch, stage: str, *, shown: str = "val") -> None:
        images, labels = batch
        logits = self(images)
        self._checks.evaluation(stage, logits, labels)
        loss = self.losses[stage]
        assert isinstance(loss, MeanMetric)
        loss.update(losses(logits, labels, self.task))
        self.log(f"{shown}/loss", loss, batch_size=len(images))
        self._count_answers(stage, shown, logits, labels)
        if self.threat is not None:
            if stage == "val" and self.robust_images is not None:
                chosen = self._chosen(labels.reshape(-1).long())
                images, labels = images[chosen], labels[chosen]
            if not len(images):
                return
            network, numbers = as_classes(self.network, labels, self.task)
            report = evaluate(network, images, numbers, self.threat, {stage: self.attacks[stage]})
            answers = report.answers, numbers
            if self.task == "multilabel":
                answers = stays_correct(*answers)
            self._count(stage, shown, "robust accuracy", *answers)

    def _count_answers(self, stage: str, shown: str, logits: Tensor, labels: Tensor) -> None:
        if self.task == "binary":
            logits, labels = two_sided(logits), labels.reshape(-1).long()
        if self.task == "multilabel":
            # by probabilities: torchmetrics would treat logits between 0 and 1 as probabilities
            logits, labels = logits.sigmoid(), labels.long()
            self._count(stage, shown, "exact match", logits, labels)
        if self.task == "regression":
            values = logits.reshape(len(logits), -1)
            labels = labels.reshape(values.shape).to(values)
            self._count(stage, shown, "mean absolute error", values, labels)
        else:
            self._count(stage, shown, "accuracy", logits, labels)

    def on_validation_epoch_start(self) -> None:
        """Start again to count which images are attacked."""
        self._attacked = torch.zeros(self.classes, dtype=torch.long)

    def _chosen(self, labels: Tensor) -> Tensor:
        """Which images of a batch are among the first of their class, those that are attacked."""
        assert self.robust_images is not None
        per_class = -(-self.robust_images // (self.classes * self.trainer.world_size))
        of_class = F.one_hot(labels.cpu(), self.classes)
        before = self._attacked + of_class.cumsum(0) - of_class
        self._attacked = self._attacked + of_class.sum(0)
        return ((before < per_class) & (of_class == 1)).any(1).to(labels.device)

    def _count(self, stage: str, shown: str, kind: str, answers: Tensor, labels: Tensor) -> None:
        accuracy = self.accuracies[f"{stage} {kind}"]
        assert isinstance(accuracy, Metric)
        accuracy.update(answers, labels)
        self.log(f"{shown}/{kind}", accuracy, batch_size=len(labels), prog_bar=True)

    def _parameters_of(self, spared: bool) -> Iterator[nn.Parameter]:
        return (p for p in self.parameters() if p.requires_grad and (p.dim() < 2) == spared)


def warm_cosine(step: int, steps: int, *, warmup: float = 0.1) -> float:
    """The factor of the learning rate: up in a line over the first part, then down along a cosine to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))
