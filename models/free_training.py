"""Free adversarial training: each batch is replayed, and its gradient moves both weights and images."""

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.models.min_max import OfMoved, check_warmup, grown
from fulgurite.probes.attacks.argument_checks import check_counts, check_threat
from fulgurite.probes.attacks.threat import Threat


class Shifts:
    """The perturbations of the images of a batch, by position; they carry over to the next batch."""

    def __init__(self):
        self.values: Float[Tensor, "n c h w"] | None = None

    def of(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Those of a batch; 0 for images of another size, and for more of them than before."""
        known, found = self.values, torch.zeros_like(images)
        if known is not None and known.shape[1:] == images.shape[1:]:
            count = min(len(known), len(images))
            found[:count] = known[:count]
        return found

    def put(self, values: Float[Tensor, "n c h w"]) -> None:
        """Keep those of a batch; a smaller one leaves the others as they are."""
        known = self.values
        if known is None or known.shape[1:] != values.shape[1:] or len(known) <= len(values):
            self.values = values
        else:
            known[: len(values)] = values


@dataclass(frozen=True)
class Free(OfMoved):
    """Cross-entropy of images moved by the gradient of the last step: an attack without extra passes.

    `Classifier` takes `replays` steps on each batch. The backward pass of each gives both the gradient that
    moves the weights and that which moves the images of the next; the next batch starts from the
    perturbations of the last one, by position. Each epoch starts from zero perturbations. An epoch costs as
    much as `replays` epochs of plain training, so train for that many times fewer. Shafahi et al. 2019,
    arxiv.org/abs/1904.12843.

    Args:
        threat: how far images may be moved.
        replays: steps on each batch.
        step: how far the images move at each, in radii.
        warmup: as for `Adversarial`.
        shifts: holds the perturbations.
    """

    threat: Threat
    replays: int = 8
    step: float = 1.0
    warmup: float = 0.0
    shifts: Shifts = field(default_factory=Shifts, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_threat(self.threat)
        check_counts(replays=self.replays)
        check_warmup(self.warmup)
        if not 0 < self.step < math.inf:
            raise ValueError(f"step={self.step}; wanted a finite number of radii above 0")

    def moved(
        self,
        network: nn.Module,  # noqa: ARG002
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],  # noqa: ARG002
    ) -> Float[Tensor, "n c h w"]:
        """The images as they have been moved so far; a backward pass from them moves them on."""
        ball, centre = replace(self.threat, bounds=None), torch.zeros_like(images)
        added = ball.project(self.shifts.of(images), centre)

        def follow(gradient: Float[Tensor, "n c h w"]) -> None:
            step = self.threat.step(gradient.nan_to_num(0, 0, 0).to(added))
            self.shifts.put(ball.project(added.add(step, alpha=self.step * self.threat.epsilon), centre))

        leaf = self.threat.bounded(images + added).detach().requires_grad_()
        leaf.register_hook(follow)
        return leaf

    def at(self, progress: float) -> "Free":
        """With the radius after this share of the training."""
        return grown(self, progress)

    def restart(self) -> None:
        """Start again from zero perturbations."""
        self.shifts.values = None
