"""Detection of catastrophic overfitting in fast adversarial training, and the reaction to it."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from fulgurite.callbacks.framework.contract import named
from fulgurite.callbacks.framework.sample import Sample, fetch
from fulgurite.callbacks.framework.tasks import Wanted, stated_task
from fulgurite.probes.attacks.ensembles import run_default_attack
from fulgurite.probes.attacks.gradient import fgsm
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.distributed import broadcast
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.predict import predict
from fulgurite.probes.robustness.evaluate import evaluate
from fulgurite.probes.tasks import LogitsOf, answers

ATTACKS = {"FGSM": fgsm, "PGD-10": partial(run_default_attack, steps=10)}
NEAR = 0.01  # of ln(classes): a loss so near to it, epoch after epoch, has learnt nothing


class CatastrophicOverfitting(pl.Callback):
    """Attacks some training images after each epoch, by one step and by ten; warns when training has failed.

    Logs the share that withstands FGSM, the share that also withstands PGD-10, and their ratio, as
    `overfitting/...`. Training has failed when after its first third (and after the `warmup` of the model's
    loss, if it has one) this ratio is below 0.25 in two consecutive epochs: the network has learnt to
    withstand the single step that it is trained with, and no other attack (Wong et al. 2020,
    arxiv.org/abs/2001.03994). It also warns, without any other reaction, when the accuracy under PGD-10 falls
    by more than 0.2 in one epoch, and when the loss is that of a network with the same output for every
    image. Each warning is given once. With `answer="warn"`, training stays the same, bit for bit.

    It works with any LightningModule whose `forward` maps images to logits, or that has a `network_to_probe`.

    Args:
        threat: what the network is trained to withstand.
        answer: the reaction besides the warning: "warn" has none, "stop" ends training, "pgd" continues with
            the loss that the model's `loss.fall_back()` returns, from the next epoch on.
        images: how many training images to attack, spread evenly over the set.
        mean: the mean per channel that the data are normalised by, if that is outside the network.
        std: the standard deviation per channel, likewise.
    """

    def __init__(
        self,
        threat: Threat,
        *,
        answer: Literal["warn", "stop", "pgd"] = "warn",
        images: int = 256,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        super().__init__()
        if answer not in ("warn", "stop", "pgd"):
            raise ValueError(f'answer={answer!r}; wanted "warn", "stop" or "pgd"')
        if images < 1:
            raise ValueError(f"images={images}; wanted at least 1")
        self.threat, self.answer, self.images, self.mean, self.std = threat, answer, images, mean, std
        self.caught = False
        self._low_epochs, self._withstood, self._warned = 0, math.nan, list[str]()
        self._losses: list[Tensor] = []
        self._logits_of: LogitsOf | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not train a resumed run that it had already stopped."""
        if self.answer == "stop" and self.caught:
            trainer.should_stop = True
            rank_zero_info(
                "catastrophic overfitting had stopped the training, which stays so; to train on, use "
                'answer="warn" (for a recipe: --overfitting warn)'
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fetch the images; after a resume, fall back once more."""
        device = device_of(pl_module)
        loader: Any = trainer.train_dataloader
        self._sample = fetch(loader, self.images, classes=(), device=device, mean=self.mean, std=self.std)
        network = getattr(pl_module, "network_to_probe", pl_module)
        wanted = Wanted(task=stated_task(pl_module), owner=type(self).__name__)
        with frozen_eval(network, mean=self.mean, std=self.std) as own:
            self._sample, self._logits_of = named(self._sample, own, wanted=wanted)
        if self._sample.labels is None:
            raise ValueError(
                f"the training data have no class numbers as labels ({self._sample.unfit or 'none at all'}), "
                "so there is no accuracy to watch"
            )
        if self.answer == "pgd" and getattr(getattr(pl_module, "loss", None), "fall_back", None) is None:
            kind = type(getattr(pl_module, "loss", None)).__name__
            raise ValueError(
                f'answer="pgd" needs a loss with fall_back(), such as Fast, but this is a {kind}'
            )
        if self.answer == "pgd" and self.caught:
            _fall_back(pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to collect losses."""
        self._losses = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss of the batch, where it is."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            self._losses.append(loss.detach() * trainer.accumulate_grad_batches)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, log and judge."""
        network = getattr(pl_module, "network_to_probe", pl_module)
        right, classes = _withstood(
            network, self._sample, self.threat, self._logits_of, mean=self.mean, std=self.std
        )
        ratio = right["PGD-10"] / right["FGSM"] if right["FGSM"] else 1.0
        # the main process decides for all: by rounding, they could disagree
        right, ratio = broadcast((right, ratio))
        for name, value in {**right, "ratio": ratio}.items():
            pl_module.log(f"overfitting/{name}", value, sync_dist=True)
        if broadcast(self._is_constant(trainer, classes)):
            self._say(
                "constant",
                f"for an epoch the training loss sat at {math.log(classes):.3f}, which is ln({classes}), as "
                "if the network predicted the same class for every image; let the radius grow (the recipe's "
                "--warmup 0.4, or warmup=0.4 of the loss), or lower the learning rate",
            )
        self._judge_fall(right["PGD-10"])
        # while the radius still grows, the network is not yet trained with this radius
        first = max(1 / 3, getattr(getattr(pl_module, "loss", None), "warmup", 0.0))
        counts = _progress(trainer) > first + 1e-9 and ratio < 0.25
        self._low_epochs = self._low_epochs + 1 if counts else 0
        if self._low_epochs >= 2 and not self.caught:
            self.caught = True
            self._answer(trainer, pl_module, right, ratio)

    def _judge_fall(self, withstood: float) -> None:
        if self._withstood - withstood > 0.2:
            self._say(
                "fall",
                f"accuracy under PGD-10 fell from {self._withstood:.0%} to {withstood:.0%} in one epoch "
                f"({len(self._sample)} training images): so catastrophic overfitting begins",
            )
        self._withstood = withstood

    def _answer(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, right: Mapping[str, float], ratio: float
    ) -> None:
        what_now = (
            'training continues; answer="stop" would end it, answer="pgd" go on with PGD (for a '
            "recipe: --overfitting stop, and with --method fast, pgd)"
        )
        if self.answer == "stop":
            trainer.should_stop = True
            what_now = "training stops"
        elif self.answer == "pgd":
            what_now = f"from the next epoch on the loss is {_fall_back(pl_module)!r}"
        self._say(
            "overfitting",
            f"catastrophic overfitting: of {len(self._sample)} training images {right['FGSM']:.0%} withstand "
            f"one step, but {right['PGD-10']:.0%} ten (ratio {ratio:.2f}, after one below 0.25 in the epoch "
            f"before); {what_now}",
        )

    def _is_constant(self, trainer: pl.Trainer, classes: int) -> bool:
        # in the first epoch every loss starts there
        if trainer.current_epoch == 0 or len(self._losses) < 2:
            return False
        wanted, losses = math.log(classes), torch.stack(self._losses).float()
        return all(abs(float(part.mean()) - wanted) < NEAR * wanted for part in losses.tensor_split(2))

    def _say(self, what: str, words: str) -> None:
        if what not in self._warned:
            self._warned.append(what)
            rank_zero_warn(words)

    def state_dict(self) -> dict:
        """The detected state, and the warnings given."""
        return {
            "caught": self.caught,
            "low_epochs": self._low_epochs,
            "withstood": self._withstood,
            "said": self._warned,
        }

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on from there."""
        self.caught, self._low_epochs = state_dict["caught"], state_dict["low_epochs"]
        self._withstood, self._warned = state_dict["withstood"], list(state_dict["said"])


def _withstood(
    network: nn.Module,
    sample: Sample,
    threat: Threat,
    logits_of: LogitsOf | None,
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[dict[str, float], int]:
    """The share of the images that withstand each attack and those before it; the number of classes."""
    assert sample.labels is not None  # checked at the start
    with frozen_eval(network, mean=mean, std=std) as own, answers(own, logits_of):
        report = evaluate(own, sample.images, sample.labels.to(sample.device), threat, ATTACKS)
        classes = predict(own, sample[:1].images).shape[1]
    return {name: report.accuracy(name) for name in ATTACKS}, classes


def _progress(trainer: pl.Trainer) -> float:
    """The share of the training that is done; 1 if it has no planned end."""
    steps = trainer.estimated_stepping_batches
    return trainer.global_step / steps if 0 < steps < math.inf else 1.0


def _fall_back(pl_module: Any) -> object:
    pl_module.loss = pl_module.loss.fall_back()
    return pl_module.loss
