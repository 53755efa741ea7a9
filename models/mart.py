"""MART: misclassification-aware adversarial training (Wang et al. 2020)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.models.losses import Adversarial
from fulgurite.models.min_max import Mode, Network, OfMoved, grown, kl_divergence
from fulgurite.probes.attacks.gradient_pass import GradientPass
from fulgurite.probes.attacks.threat import Threat


@dataclass(frozen=True)
class Mart(OfMoved):
    """Boosted cross-entropy of adversarial images, plus the divergence where the clean image is doubtful.

    The first part is the cross-entropy of an adversarial image minus the logarithm of one minus the
    probability of the most probable wrong class. The second is the divergence of the adversarial image's
    prediction from the clean one's, times the probability that the clean image is not of its class. PGD
    maximises the cross-entropy. Wang et al. 2020, openreview.net/forum?id=rklOg6EFwS.

    Args:
        threat: how far images may be moved.
        beta: the weight of the second part; the authors use 5 and 6.
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
        self._attack()
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta={self.beta}; wanted a finite weight of at least 0")

    def moved(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, "n c h w"]:
        """The adversarial images."""
        return self._attack().moved(network, images, labels)

    def of(
        self,
        network: Network,
        images: Float[Tensor, "n c h w"],
        moved: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
    ) -> Float[Tensor, ""]:
        """The mean of both parts for images that were moved before."""
        clean, adversarial = F.log_softmax(network(images), 1), F.log_softmax(network(moved), 1)
        own = labels[:, None]
        wrong = adversarial.scatter(1, own, -torch.inf).amax(1).exp()
        # as the authors do: so a confident wrong prediction has a finite loss
        boosted = F.nll_loss(adversarial, labels) - (1.0001 - wrong).log().mean()
        doubt = 1 - clean.gather(1, own)[:, 0].exp()
        return boosted + self.beta * (kl_divergence(adversarial, clean) * doubt).mean()

    def at(self, progress: float) -> "Mart":
        """With the radius that it has when this share of the training lies behind."""
        return grown(self, progress)

    def _attack(self) -> Adversarial:
        how = {"mode": self.mode, "gradient_pass": self.gradient_pass, "warmup": self.warmup}
        return Adversarial(self.threat, steps=self.steps, step_size=self.step_size, **how)
