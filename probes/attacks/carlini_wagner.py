"""Penalties against distance, with a search over their weights: Carlini & Wagner, and Szegedy's L-BFGS."""

from typing import Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts, check_numbers
from fulgurite.probes.attacks.attacked_network import AttackOptions
from fulgurite.probes.attacks.nearest_adversarial import Nearest, each_likeliest, minimal_attack
from fulgurite.probes.attacks.threat import L2, TINY, Threat
from fulgurite.probes.synthesis.lbfgs import lbfgs
from fulgurite.probes.synthesis.optimizers import By, adam, linear_decay

_L2 = L2(1.0)


def carlini_wagner(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    norm: str | Threat = "l2",
    *,
    searches: int = 9,
    steps: int = 100,
    step_size: float = 0.02,
    confidence: float = 0.0,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """Minimise |r|^2 + c max(-margin, 0) over shifts r by Adam, with a binary search over c for each image.

    Pixels are kept within bounds by projection: through the paper's tanh, those that are exactly 0 or 1 have
    no gradient. The first c is the one that a linear network needs. Returns the nearest points found on the
    lines from the images; an image for which none was found is returned unchanged. Carlini & Wagner 2017,
    arxiv.org/abs/1608.04644, who made up to 10,000 steps.

    Args:
        network: maps images to logits.
        images: within the norm's bounds.
        labels: the true class of each image.
        norm: "l2", or such a threat, whose radius does not matter.
        searches: values of c.
        steps: gradient passes for each.
        step_size: of Adam, in the images' units; it falls to 0 along a line.
        confidence: the lead of another class that counts as success, in logits.
        how: options of every attack, see `AttackOptions`; but no loss.

    Raises:
        ValueError: as `attacked`, for counts below 1, another norm, and for a loss.
    """
    check_counts(searches=searches, steps=steps)
    check_numbers(step_size=step_size, confidence=confidence)
    with minimal_attack(network, images, labels, norm, known=("l2",), **how) as (nearest, rows):
        if len(rows):
            result = nearest.run.loss_gradient(nearest.images[rows], rows, loss="margin")
            steepness = result.gradient.flatten(1).square().sum(1).clamp(min=TINY)
            # at 2 |margin| / steepness, the minimum of the sum would be on the boundary of a linear network
            weights = _Bisection((4 * result.values.abs() / steepness).clamp(1e-6, 1e6))
            by = adam(step_size, schedule=linear_decay)
            for _ in range(searches):
                weights.narrow(~_minimised(nearest, rows, weights.now, by, steps, confidence))
    return nearest.points


def szegedy(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    norm: str | Threat = "l2",
    *,
    searches: int = 8,
    steps: int = 30,
    target_classes: int = 2,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """Minimise c |r| + cross-entropy of a target class within bounds, by L-BFGS, with a search over c.

    The first published attack on neural networks. It leads to a target; without one, to the likeliest classes
    in turn. Returns the nearest points found on the lines from the images; an image for which none was found
    is returned unchanged. Szegedy et al. 2014, arxiv.org/abs/1312.6199.

    Args:
        network: maps images to logits.
        images: within the norm's bounds.
        labels: the true class of each image.
        norm: "l2", or such a threat, whose radius does not matter.
        searches: values of c, for each target class.
        steps: gradient passes for each value.
        target_classes: to how many other classes, the likeliest for the image first.
        how: options of every attack, see `AttackOptions`; but no loss.

    Raises:
        ValueError: as `attacked`, for counts below 1, another norm, and for a loss.
    """
    check_counts(searches=searches, steps=steps, target_classes=target_classes)
    with minimal_attack(network, images, labels, norm, known=("l2",), **how) as (nearest, rows):
        run = nearest.run
        for target in each_likeliest(run, rows, target_classes):
            result = run.loss_gradient(nearest.images[rows], rows, loss="cross_entropy", targets=target)
            # where the image itself minimises the sum, it does so for every larger c
            weights = _Bisection(result.gradient.flatten(1).norm(dim=1).clamp(1e-6, 1e6) / 4)
            for _ in range(searches):
                weights.narrow(_led(nearest, rows, target, weights.now, steps))
    return nearest.points


class _Bisection:
    """A weight for each image, between one that is too small and one that is too large."""

    def __init__(self, first: Float[Tensor, "m"]):
        self.now, self.low, self.high = first, torch.zeros_like(first), torch.full_like(first, torch.inf)

    def narrow(self, larger: Bool[Tensor, "m"]) -> None:
        """Go on with larger weights for these, and smaller ones for the others."""
        self.low, self.high = (
            torch.where(larger, self.now, self.low),
            torch.where(larger, self.high, self.now),
        )
        between = (self.low * self.high).sqrt()
        self.now = torch.where(
            self.high.isinf(), 8 * self.low, torch.where(self.low == 0, self.high / 8, between)
        )


def _minimised(
    nearest: Nearest,
    rows: Int[Tensor, "m"],
    weights: Float[Tensor, "m"],
    by: By,
    steps: int,
    confidence: float,
) -> Bool[Tensor, "m"]:
    """Which of the images fooled the network on the way down."""
    run, images = nearest.run, nearest.images[rows]
    pixels, found = nn.Parameter(images.clone()), torch.zeros_like(rows, dtype=torch.bool)
    optimizer = by([pixels])
    for step in range(steps + 1):
        points = pixels.detach().clone()
        result = run.loss_gradient(points, rows, loss="margin")
        found |= nearest.look(points, rows, result.logits) & (result.values >= confidence)
        slope = (weights * (result.values < confidence))[:, None, None, None] * result.gradient
        optimizer.step(result.values, [slope - 2 * (points - images)], min(step / steps, 1))
        pixels.data.copy_(run.threat.bounded(pixels.data))
    return found


def _led(
    nearest: Nearest,
    rows: Int[Tensor, "m"],
    target: Int[Tensor, "m"],
    weights: Float[Tensor, "m"],
    steps: int,
) -> Bool[Tensor, "m"]:
    """Which of the images fooled the network on the way to the target."""
    run, images = nearest.run, nearest.images[rows]
    pixels, found = nn.Parameter(images.clone()), torch.zeros_like(rows, dtype=torch.bool)
    optimizer = lbfgs()([pixels])
    for step in range(steps + 1):
        points = pixels.detach().clone()
        result = run.loss_gradient(points, rows, loss="cross_entropy", targets=target)
        found |= nearest.look(points, rows, result.logits)
        shifts = points - images
        values = result.values - weights * _L2.length(shifts)
        gradient = result.gradient - weights[:, None, None, None] * _L2.step(shifts)
        optimizer.step(values, [gradient], step / (steps + 1))
        pixels.data.copy_(run.threat.bounded(pixels.data))
    return found
