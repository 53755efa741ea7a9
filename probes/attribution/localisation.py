"""Localisation of attribution maps: pointing game, and energy inside a mask."""

import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor


def pointing_game(
    maps: Float[Tensor, "n 1 h w"], masks: Bool[Tensor, "m u v"], *, tolerance: float = 0.0
) -> Float[Tensor, "n"]:
    """Whether the largest value of each map lies in the mask: 1 or 0; NaN where the mask is empty.

    Where several pixels are largest, the share of them that lies in it. Zhang et al. 2018,
    arxiv.org/abs/1608.00507, who allow a `tolerance` of 15 pixels around the mask; here it is 0.

    Raises:
        ValueError: masks of another size than the maps.
    """
    check_masks(masks, maps)
    masks = masks.to(maps.device)
    inside = masks if tolerance <= 0 else torch.stack([_widened(mask, tolerance) for mask in masks])
    flat = maps.flatten(1)
    largest = flat == flat.amax(1, keepdim=True)
    hits = (largest & inside.flatten(1)).sum(1) / largest.sum(1)
    return torch.where(masks.flatten(1).any(1), hits.to(maps), torch.nan)


def energy_inside(maps: Float[Tensor, "n 1 h w"], masks: Bool[Tensor, "m u v"]) -> Float[Tensor, "n"]:
    """The share of each map's positive values that lies in the mask, in [0, 1].

    The energy-based pointing game of Wang et al. 2020, arxiv.org/abs/1910.01279. NaN where the mask is empty,
    or no value of the map positive. For a uniform map it is the mask's share of the image.

    Raises:
        ValueError: masks of another size than the maps.
    """
    check_masks(masks, maps)
    masks = masks.to(maps.device)
    positive = maps.clamp(min=0).flatten(1).double()
    # the largest is 1: sums of tiny values must not vanish
    positive = positive / positive.amax(1, keepdim=True)
    found = (positive * masks.flatten(1)).sum(1) / positive.sum(1)
    return torch.where(masks.flatten(1).any(1), found, torch.nan).to(maps)


def check_masks(masks: Tensor, maps: Tensor) -> None:
    """Check that there is a mask for each map, of its size.

    Raises:
        ValueError: there is not.
    """
    wanted = (len(maps), *maps.shape[-2:])
    if masks.shape != wanted:
        raise ValueError(
            f"masks of {tuple(masks.shape)} for maps of {tuple(maps.shape)}; wanted one for each map and of "
            f"its size, {wanted}"
        )


def _widened(mask: Bool[Tensor, "h w"], tolerance: float) -> Bool[Tensor, "h w"]:
    if not mask.any():
        return mask
    distance = torch.from_numpy(distance_transform_edt((~mask).cpu().numpy()))
    return (distance <= tolerance).to(mask.device)
