"""DDN and FMN: a step along the gradient, and a radius that shrinks on success and grows on failure."""

import math
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attacks.argument_checks import check_counts, check_numbers
from fulgurite.probes.attacks.attacked_network import AttackOptions
from fulgurite.probes.attacks.nearest_adversarial import Nearest, each_likeliest, minimal_attack
from fulgurite.probes.attacks.projections import threshold
from fulgurite.probes.attacks.threat import L2, TINY, Linf, Threat

_L2 = L2(1.0)


def ddn(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    norm: str | Threat = "l2",
    *,
    steps: int = 100,
    rate: float = 0.05,
    first: float = 1.0,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """Follow the gradient of the cross-entropy on a sphere that shrinks while the network is fooled.

    Direction and length of the shift are decoupled: steps of unit length, later shorter, turn it; its length
    shrinks by `rate` after a success and grows after a failure. Returns the nearest points found on the lines
    from the images; an image for which none was found is returned unchanged. Rony et al. 2019,
    arxiv.org/abs/1811.09600.

    Args:
        network: maps images to logits.
        images: within the norm's bounds.
        labels: the true class of each image.
        norm: "l2", or such a threat, whose radius does not matter.
        steps: gradient passes.
        rate: by what share the length changes at each step.
        first: the first length, in the images' units.
        how: options of every attack, see `AttackOptions`; but no loss.

    Raises:
        ValueError: as `attacked`, for counts below 1, another norm, and for a loss.
    """
    check_counts(steps=steps)
    check_numbers(rate=rate, first=first)
    with minimal_attack(network, images, labels, norm, known=("l2",), **how) as (nearest, rows):
        run, images = nearest.run, nearest.images[rows]
        shifts, radii = torch.zeros_like(images), torch.full_like(images[:, 0, 0, 0], first)
        for step in range(steps if len(rows) else 0):
            result = run.loss_gradient(images + shifts, rows)
            fooled = nearest.look(images + shifts, rows, result.logits)
            # the first point is the image itself: its failure tells nothing about the radius
            radii = radii * torch.where(fooled, 1 - rate, 1 + rate * (step > 0))
            size = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
            shifts = shifts + size * _L2.step(result.gradient)
            shifts = run.threat.bounded(images + radii[:, None, None, None] * _L2.step(shifts)) - images
        nearest.look(images + shifts, rows)
    return nearest.points


def fmn(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"],
    norm: str | Threat = "l2",
    *,
    steps: int = 100,
    step_size: float = 1.0,
    rate: float = 0.05,
    target_classes: int = 2,
    **how: Unpack[AttackOptions],
) -> Float[Tensor, "n c h w"]:
    """Follow the gradient of the margin in a ball that shrinks while the network is fooled, in any norm.

    Until a point is found, the radius is what a linear network would need; then it changes by a share, which
    falls to 0 as the step size does. The margin is that of the target, or of each of the likeliest classes in
    turn: the paper follows whichever leads, and misses a nearer boundary whose class starts further behind.
    Returns the nearest points found on the lines from the images; an image for which none was found is
    returned unchanged. Pintor et al. 2021, arxiv.org/abs/2102.12827.

    Args:
        network: maps images to logits.
        images: within the norm's bounds.
        labels: the true class of each image.
        norm: "l2", "linf" or "l1", or such a threat, whose radius does not matter.
        steps: gradient passes, for each target class.
        step_size: the Euclidean length of the first step.
        rate: by what share the radius changes at the first step.
        target_classes: to how many other classes, the likeliest for the image first.
        how: options of every attack, see `AttackOptions`; but no loss.

    Raises:
        ValueError: as `attacked`, for counts below 1, and for a loss.
    """
    check_counts(steps=steps, target_classes=target_classes)
    check_numbers(step_size=step_size, rate=rate)
    with minimal_attack(network, images, labels, norm, **how) as (nearest, rows):
        for target in each_likeliest(nearest.run, rows, target_classes):
            _shrink(nearest, rows, target, steps, step_size, rate)
    return nearest.points


def _shrink(
    nearest: Nearest,
    rows: Int[Tensor, "m"],
    target: Int[Tensor, "m"],
    steps: int,
    step_size: float,
    rate: float,
) -> None:
    """Steps towards the target class, within balls that shrink while the network is fooled."""
    run, images = nearest.run, nearest.images[rows]
    dual = {"Linf": 1, "L2": 2}.get(type(run.threat).__name__, math.inf)
    loss = "lead" if run.targets is None else "margin"
    shifts, radii = torch.zeros_like(images), torch.zeros_like(images[:, 0, 0, 0])
    best = torch.full_like(radii, torch.inf)
    for step in range(steps):
        result = run.loss_gradient(images + shifts, rows, loss=loss, targets=target)
        fooled = nearest.look(images + shifts, rows, result.logits)
        lengths = run.threat.length(shifts)
        best = torch.where(fooled, lengths.minimum(best), best)
        slope = torch.linalg.vector_norm(result.gradient.flatten(1), dual, dim=1).clamp(min=TINY)
        done = (1 + math.cos(math.pi * step / steps)) / 2
        # a little more than a linear network needs: from below, it would never get there
        estimate = (lengths + result.values.abs() / slope).maximum(radii) * (1 + rate)
        longer = torch.where(best.isinf(), estimate, lengths * (1 + rate * done))
        radii = torch.where(fooled, lengths.minimum(best) * (1 - rate * done), longer).nan_to_num(0, 0, 0)
        shifts = shifts + step_size * done * _L2.step(result.gradient)
        shifts = run.threat.bounded(images + _within(shifts, radii, run.threat)) - images
    nearest.look(images + shifts, rows)


def _within(
    shifts: Float[Tensor, "n c h w"], radii: Float[Tensor, "n"], threat: Threat
) -> Float[Tensor, "n c h w"]:
    """The nearest shifts whose lengths are at most these."""
    each = radii[:, None, None, None]
    if isinstance(threat, Linf):
        return shifts.clamp(-each, each)
    if isinstance(threat, L2):
        return shifts * (each / threat.length(shifts)[:, None, None, None].clamp(min=TINY)).clamp(max=1)
    sizes = shifts.flatten(1).abs()
    less = threshold(sizes, sizes, radii[:, None])
    return shifts.sign() * (sizes - less[:, None]).clamp(min=0).view_as(shifts)
