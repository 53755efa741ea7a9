"""Perturbation patterns of the Square attack in L2 and L1."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.threat import L1, TINY, Threat

Window = tuple[slice, slice]


def tiled(
    images: Float[Tensor, "n c h w"], threat: Threat, draws: PerImageRandom
) -> Float[Tensor, "n c h w"]:
    """The images with patterns side by side, five to the shorter side, of random sign and orientation."""
    channels, height, width = images.shape[1:]
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    signs = torch.where(draws.uniform(channels, down, across) < 0.5, 1.0, -1.0)[..., None, None]
    turned = draws.uniform(1, down, across)[..., None, None] < 0.5
    one = pattern(side, _power(threat)).to(images)
    tiles = (signs * torch.where(turned, one.T, one)).transpose(3, 4)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    shifts = torch.zeros_like(images)
    shifts[:, :, top : top + down * side, left : left + across * side] = tiles.reshape(
        len(images), channels, down * side, across * side
    )
    return threat.project(
        images + threat.epsilon * shifts / threat.length(shifts)[:, None, None, None], images
    )


def move_pattern(
    moved: Float[Tensor, "m c h w"],
    images: Float[Tensor, "m c h w"],
    threat: Threat,
    into: Window,
    out_of: Window,
    signs: Float[Tensor, "c 1 1"],
    *,
    turned: bool,
) -> Float[Tensor, "m c h w"]:
    """Shifts with a pattern added in one window, which gets the length that another window gives up.

    The new length is that of both windows and what is left of the radius, in equal parts for all channels, so
    that the shift is as long as the radius before it is clamped to the bounds.
    """
    power, shifts = _power(threat), moved - images
    here, there = (..., *into), (..., *out_of)
    held = torch.zeros_like(shifts[:1, :1])
    held[here] = held[there] = 1
    masses = shifts.abs() ** power
    left = (threat.epsilon**power - masses.sum((1, 2, 3), keepdim=True)).clamp(min=0) / shifts.shape[1]
    mass = (masses * held).sum((2, 3), keepdim=True) + left
    one = _pattern_on(into[0].stop - into[0].start, power, shifts.dtype, shifts.device)
    shape = signs * (one.T if turned else one) + _whole(shifts[here], power)
    shifts[there] = 0
    shifts[here] = _whole(shape, power) * mass ** (1 / power)
    return threat.project(images + shifts, images)


@functools.cache
def pattern(side: int, power: int) -> Float[Tensor, "s s"]:
    """A positive peak above a negative one, of norm 1 for this power; both fall off by 1 / (ring + 1)^2."""
    halves = []
    for sign, height in ((1.0, side // 2), (-1.0, side - side // 2)):
        rows, columns = (torch.arange(count) - count // 2 for count in (height, side))
        rings = torch.maximum(rows.abs()[:, None], columns.abs())
        falls = torch.arange(1, max(height, side) // 2 + 2).double().pow(-2)
        halves.append(sign * falls.flip(0).cumsum(0).flip(0)[rings])
    return _whole(torch.cat(halves), power).float()


@functools.cache
def _pattern_on(side: int, power: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "s s"]:
    with torch.inference_mode(False):
        return pattern(side, power).to(device, dtype)


def _power(threat: Threat) -> int:
    return 1 if isinstance(threat, L1) else 2


def _whole(shifts: Float[Tensor, "*n h w"], power: int) -> Float[Tensor, "*n h w"]:
    """Each channel brought to length 1."""
    return shifts / shifts.flatten(-2).norm(p=power, dim=-1).clamp(min=TINY)[..., None, None]
