"""Training losses: cross-entropy, and min-max losses for adversarial training (Madry, TRADES, fast)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.models.min_max import (
    Mode,
    Network,
    OfMoved,
    check_warmup,
    divergence,
    draws_from_a_generator,
    fastest,
    grown,
    kl_divergence,
    step_generator,
)
from fulgurite.probes.attacks.argument_checks import check_choices
from fulgurite.probes.attacks.gradient import Start, check_steps, fgsm, pgd
from fulgurite.probes.attacks.gradient_pass import PLAIN, GradientPass
from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import Objective


@runtime_checkable
class Loss(Protocol):
    """A training loss.

    It gets the network, not its logits, so that a loss can choose the network's input.
    """

    def __call__(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """The mean loss of the batch, graph attached."""
        ...


@runtime_checkable
class Growing(Loss, Protocol):
    """A loss with a smaller radius in the first part of the training, of the share `warmup`."""

    @property
    def warmup(self) -> float:
        """The share of the training after which the radius is full; 0 without warm-up."""
        ...

    def at(self, progress: float) -> Loss:
        """The loss after this share of the training, from 0 to 1."""
        ...


@dataclass(frozen=True)
class Plain:
    """Cross-entropy of the images as they are.

    Args:
        smoothing: the share of each label that is spread evenly over all classes.
    """

    smoothing: float = 0.0

    def __call__(
        self,
        network: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"] | Float[Tensor, "n k"],
    ) -> Float[Tensor, ""]:
        """The mean cross-entropy, of classes or of the shares of each class."""
        return F.cross_entropy(network(images), labels, label_smoothing=self.smoothing)


@dataclass(frozen=True)
class Adversarial(OfMoved):
    """Cross-entropy of the worst images within a threat, as PGD finds them: min-max training.

    Madry et al. 2018, arxiv.org/abs/1706.06083. Draws follow torch's random state, so that a seeded run can
    be repeated. A large radius from the start often ends in a network with the same output for all images;
    `warmup` prevents that.

    Args:
        threat: how far images may be moved.
        steps: of PGD, each a forward and a backward pass.
        step_size: of a step, in the threat's norm; 2.5 radii over all steps without it.
        restarts: from how many random starts; a misclassified image is not started again.
        loss: the loss that PGD maximises: "cross_entropy", "margin", "dlr", or an objective.
        mode: of BatchNorm and dropout during the attack: "eval", or "train" as in the training pass. The
            attack never changes their running statistics.
        gradient_pass: how the gradient passes run; on a CPU in channels_last, by default.
        warmup: the share of the training over which the radius grows linearly from 0.
        attack: another attack than PGD, called as `attack(network, images, labels, threat, generator=...)`.
            It then has its own steps, loss, mode and gradient_pass. One that stops at misclassified images
            (`drop=True`) is weaker for training.
    """

    threat: Threat
    steps: int = 7
    step_size: float | None = None
    restarts: int = 1
    loss: str | Objective = "cross_entropy"
    mode: Mode = "eval"
    gradient_pass: GradientPass | None = None
    warmup: float = 0.0
    attack: Callable[..., Tensor] | None = None

    def __post_init__(self) -> None:
        check_choices(self.threat, self.loss, None, self.mode, self.gradient_pass or PLAIN)
        check_steps(self.steps, self.step_size, restarts=self.restarts)
        check_warmup(self.warmup)
        if self.mode == "train" and self.restarts > 1:
            raise ValueError(
                f'restarts={self.restarts} with mode="train": BatchNorm would see fewer images each time, '
                'and processes that share it would hang; use mode="eval", or one start'
            )
        if self.attack is not None and not draws_from_a_generator(self.attack):
            raise ValueError(
                f"{self.attack!r} takes no generator=, which training draws from; wanted an attack like pgd"
            )

    def moved(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, "n c h w"]:
        """The adversarial images."""
        how = {"loss": self.loss, "mode": self.mode, "gradient_pass": fastest(self.gradient_pass, images)}
        ours = partial(pgd, steps=self.steps, restarts=self.restarts, step_size=self.step_size, **how)
        attack = ours if self.attack is None else self.attack
        return attack(network, images, labels, self.threat, generator=step_generator(images))

    def at(self, progress: float) -> "Adversarial":
        """With the radius that it has when this share of the training lies behind."""
        return grown(self, progress)


@dataclass(frozen=True)
class Trades(OfMoved):
    """Cross-entropy of the clean images, plus the divergence of predictions within the threat.

    That is the divergence of predictions for the moved images from those for the clean ones. PGD maximises
    it, from a random start: at the image itself its gradient is 0. Zhang et al. 2019,
    arxiv.org/abs/1901.08573.

    Args:
        threat: how far images may be moved.
        beta: the weight of the second part: 6 for robustness, 1 for accuracy.
        steps: as for `Adversarial`, like all that follow.
        step_size: of a step.
        mode: of BatchNorm and dropout during the attack.
        gradient_pass: how the gradient passes run.
        warmup: the share of the training over which the radius grows.
    """

    threat: Threat
    beta: float = 6.0
    steps: int = 10
    step_size: float | None = None
    mode: Mode = "eval"
    gradient_pass: GradientPass | None = None
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self.threat, "cross_entropy", None, self.mode, self.gradient_pass or PLAIN)
        check_steps(self.steps, self.step_size)
        check_warmup(self.warmup)
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta={self.beta}; wanted a finite weight of at least 0")

    def of(
        self,
        network: Network,
        images: Float[Tensor, "n c h w"],
        moved: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
    ) -> Float[Tensor, ""]:
        """The mean of both parts for images that were moved before."""
        clean = network(images)
        apart = kl_divergence(F.log_softmax(network(moved), 1), F.log_softmax(clean, 1)).mean()
        return F.cross_entropy(clean, labels) + self.beta * apart

    def moved(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, "n c h w"]:
        """The images, moved by PGD to where predictions differ most from the clean ones."""
        how = {
            "mode": self.mode,
            "gradient_pass": fastest(self.gradient_pass, images),
            "generator": step_generator(images),
        }
        with frozen_eval(network, modes="eval" if self.mode == "eval" else "unchanged") as own:
            with torch.no_grad():
                log_probabilities = F.log_softmax(own(images), 1)  # once: they stay the same
            attack = partial(
                pgd, steps=self.steps, step_size=self.step_size, loss=divergence(log_probabilities), **how
            )
            return attack(own, images, labels, self.threat)

    def at(self, progress: float) -> "Trades":
        """With the radius that it has when this share of the training lies behind."""
        return grown(self, progress)


@dataclass(frozen=True)
class Fast(OfMoved):
    """Cross-entropy of the images after a single step from a random start: FGSM, at two passes an image.

    Wong et al. 2020, arxiv.org/abs/2001.03994. From the image itself, and sometimes from a random start too,
    training overfits to the single step and the network withstands no other attack: watch it with
    `callbacks.overfitting`.

    Args:
        threat: how far images may be moved.
        start: "random", or "image".
        step: its length in radii; 1.25 from a random start, 1 from the image.
        mode: as for `Adversarial`.
        gradient_pass: how the one gradient pass runs.
        warmup: as for `Adversarial`.
    """

    threat: Threat
    start: Start = "random"
    step: float | None = None
    mode: Mode = "eval"
    gradient_pass: GradientPass = PLAIN
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self.threat, "cross_entropy", None, self.mode, self.gradient_pass)
        check_steps(1, self.step, start=self.start)
        check_warmup(self.warmup)

    def moved(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, "n c h w"]:
        """The images after the step."""
        size = None if self.step is None else self.step * self.threat.epsilon
        how = {"mode": self.mode, "gradient_pass": self.gradient_pass, "generator": step_generator(images)}
        return fgsm(network, images, labels, self.threat, start=self.start, step_size=size, **how)

    def at(self, progress: float) -> "Fast":
        """With the radius that it has when this share of the training lies behind."""
        return grown(self, progress)

    def fall_back(self) -> Adversarial:
        """The loss to continue with after catastrophic overfitting: PGD within the same threat."""
        gradient_pass = None if self.gradient_pass == PLAIN else self.gradient_pass
        return Adversarial(self.threat, mode=self.mode, gradient_pass=gradient_pass, warmup=self.warmup)
