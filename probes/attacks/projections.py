"""Projections onto L2 and L1 balls within pixel bounds."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.device_sync import AT_HAND, known

TINY = torch.finfo(torch.float32).tiny


def moved_by(images: Float[Tensor, "n c h w"], shifts: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The images, shifted; rounded towards where they were, so that roundings never add up."""
    moved = images + shifts
    return torch.where((moved - images).abs() > shifts.abs(), moved.nextafter(images), moved)


def within_length(
    shifts: Float[Tensor, "n c h w"], low: Tensor, high: Tensor, radius: float
) -> Float[Tensor, "n c h w"]:
    """The shifts scaled so that, clamped to `low` and `high`, their length is at most `radius`."""
    bounded = shifts.clamp(low, high)
    far = bounded.flatten(1).norm(dim=1) > radius
    if known(far.any()) is False:
        return bounded
    # where it costs nothing to ask, few rounds do; elsewhere to sort takes as long as one of them
    iterate = shifts.device.type in AT_HAND
    factor = (_factor_by_rounds if iterate else _factor_by_sorting)(shifts, low, high, radius)
    scaled = (factor[:, None, None, None] * shifts).clamp(low, high)
    return torch.where(far[:, None, None, None], scaled, bounded)


def _factor_by_rounds(
    shifts: Float[Tensor, "n c h w"], low: Tensor, high: Tensor, radius: float
) -> Float[Tensor, "n"]:
    """The factor s is that where s^2 = (radius^2 - cut^2) / free^2.

    Each round finds more of the clamped pixels, so that s only grows; exact when there are no new ones.
    """
    factor = radius / shifts.flatten(1).norm(dim=1).clamp(min=max(radius, TINY))
    for _ in range(shifts[0].numel()):
        scaled = factor[:, None, None, None] * shifts
        cut = scaled.clamp(low, high)
        free = scaled == cut
        fixed = (cut * ~free).flatten(1).square().sum(1)
        loose = (shifts * free).flatten(1).square().sum(1)
        grown = (
            ((radius**2 - fixed).clamp(min=0) / loose.clamp(min=TINY))
            .sqrt()
            .clamp(min=factor, max=torch.ones_like(factor))
        )
        settled = grown <= factor * (1 + 1e-6)
        if settled.all():
            break
        factor = torch.where(settled, factor, grown)  # no further, however long others take
    return factor


def _factor_by_sorting(
    shifts: Float[Tensor, "n c h w"], low: Tensor, high: Tensor, radius: float
) -> Float[Tensor, "n"]:
    """The same at once: pixels in the order of the factors at which they meet their bounds."""
    sizes = shifts.flatten(1).abs().double()
    room = torch.where(shifts > 0, high, -low).flatten(1).double().clamp(min=0)
    meets, order = (room / sizes.clamp(min=TINY)).clamp(max=1).sort(1)
    fixed = F.pad(room.gather(1, order).square().cumsum(1)[:, :-1], (1, 0))  # of those cut before
    loose = sizes.gather(1, order).square().flip(1).cumsum(1).flip(1)  # of all others
    reached = fixed + meets.square() * loose  # at the factor where each is met
    place = (reached < radius**2).sum(1, keepdim=True).clamp(max=sizes.shape[1] - 1)
    square = (radius**2 - fixed.gather(1, place)).clamp(min=0) / loose.gather(1, place).clamp(min=TINY)
    return square.sqrt().clamp(max=1)[:, 0].to(shifts)


def threshold(
    sizes: Float[Tensor, "n d"], room: Float[Tensor, "n d"], radius: float | Float[Tensor, "n 1"]
) -> Float[Tensor, "n"]:
    """The threshold to subtract from each size so that the rest, clamped to `room`, sums to `radius`.

    That sum falls with the threshold in straight pieces; a size contributes from where it is no longer
    clamped to its room to where it reaches 0.
    """
    starts, ends = (sizes - room).clamp(min=0), sizes
    corners, order = torch.cat([starts, ends], 1).sort(1)
    slopes = torch.where(order < sizes.shape[1], 1.0, -1.0).to(sizes.dtype).cumsum(1)
    gaps = corners.diff(dim=1, append=corners[:, -1:])
    whole = sizes.minimum(room).sum(1, keepdim=True)
    falls = (slopes * gaps).cumsum(1)
    after = torch.cat([whole, whole - falls[:, :-1]], 1)  # what is left at each corner
    place = (after > radius).sum(1, keepdim=True).clamp(min=1) - 1  # the last corner with too much left
    too_much = after.gather(1, place) - radius
    less = corners.gather(1, place) + too_much / slopes.gather(1, place).clamp(min=1)
    return torch.where(whole > radius, less, torch.zeros_like(less))[:, 0].clamp(min=0)
