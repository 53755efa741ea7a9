"""Projection onto a hyperplane within a box, in Linf, L2 and L1."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attacks.threat import L1, L2, TINY, Linf, Threat

SLIGHT = 1e-12  # of the largest weight: a pixel that weighs less is left alone


def shift_to_plane(
    points: Float[Tensor, "n c h w"],
    normals: Float[Tensor, "n c h w"],
    gaps: Float[Tensor, "n"],
    threat: Threat,
) -> Float[Tensor, "n c h w"]:
    """The shortest shift, in the threat's norm, by which the dot product with `normals` grows by `gaps`.

    If the bounds do not allow it, the shift that comes nearest; no shift where the normal is 0. The threat's
    radius does not matter. Croce & Hein 2020, arxiv.org/abs/1907.02044, appendix.

    Raises:
        ValueError: a threat in another norm than Linf, L2 and L1.
    """
    low, high = threat.limits(points)
    heading = normals.sign() * torch.where(gaps < 0, -1, 1)[:, None, None, None]
    weights = normals.flatten(1).abs()
    largest = weights.amax(1, keepdim=True).clamp(min=TINY)
    weights, wanted = weights / largest, gaps.abs()[:, None] / largest
    weights = weights.masked_fill(weights < SLIGHT, 0)
    room = torch.where(heading > 0, high - points, points - low).clamp(min=0).flatten(1)
    room = room.masked_fill(weights == 0, 0)
    if isinstance(threat, Linf):
        sizes = _all_at_once(weights, torch.ones_like(weights), room, wanted)
    elif isinstance(threat, L2):
        sizes = _all_at_once(weights, weights, room, wanted)
    elif isinstance(threat, L1):
        sizes = _one_by_one(weights, room, wanted)
    else:
        raise ValueError(f"no shortest way onto a plane for {threat}; wanted Linf, L2 or L1")
    return heading * sizes.view_as(points)


def _all_at_once(
    weights: Float[Tensor, "n d"],
    paces: Float[Tensor, "n d"],
    room: Float[Tensor, "n d"],
    wanted: Float[Tensor, "n 1"],
) -> Float[Tensor, "n d"]:
    """Sizes min(t pace, room) whose weighted sum is `wanted`, with one t for all pixels of an image.

    That sum grows with t in straight pieces, and bends where a pixel's room is used up.
    """
    bends, order = torch.where(weights > 0, room / paces, 0).sort(dim=1, stable=True)
    used = F.pad((weights * room).gather(1, order).cumsum(1)[:, :-1], (1, 0))  # by pixels without room left
    rate = (weights * paces).gather(1, order).flip(1).cumsum(1).flip(1)  # of all the others
    piece = (used + bends * rate < wanted).sum(1, keepdim=True)
    last = bends.shape[1] - 1
    place = piece.clamp(max=last)
    time = (wanted - used.gather(1, place)).clamp(min=0) / rate.gather(1, place).clamp(min=TINY)
    time = torch.where(piece > last, bends[:, -1:], time)
    return (time * paces).minimum(room)


def _one_by_one(
    weights: Float[Tensor, "n d"], room: Float[Tensor, "n d"], wanted: Float[Tensor, "n 1"]
) -> Float[Tensor, "n d"]:
    """The heaviest pixel as far as it has room, then the next, until the weighted sum is `wanted`."""
    heaviest, order = weights.sort(dim=1, descending=True, stable=True)
    rooms = room.gather(1, order)
    before = F.pad((heaviest * rooms).cumsum(1)[:, :-1], (1, 0))
    sizes = ((wanted - before) / heaviest.clamp(min=TINY)).clamp(min=0).minimum(rooms)
    return torch.zeros_like(room).scatter(1, order, sizes)
