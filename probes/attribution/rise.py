"""RISE: attribution by random masks (Petsiuk et al. 2018)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.attribution.perturbations import Fill, add_by_image, filling, scoring
from fulgurite.probes.counter_random import words
from fulgurite.probes.objectives import Objectives, as_list, squeeze_single


def rise(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    *,
    masks: int = 4000,
    cells: int = 7,
    keep_probability: float = 0.5,
    fill: Fill = "grey",
    seed: int = 0,
    progress: str | None = None,
) -> Float[Tensor, "*k n 1 h w"]:
    """How much larger the objective is, on average, when a pixel is visible than over all masks, signed.

    The paper's map less its mean: 0 is a pixel that does not matter. Each mask is a random grid of
    `cells` x `cells`, shifted and enlarged, in which each cell is visible with probability
    `keep_probability`; all images of a batch get the same masks. Petsiuk et al. 2018,
    arxiv.org/abs/1806.07421, who use 4000 masks and more. Costs a forward pass for each mask.
    """
    if masks < 2 or cells < 1 or not 0 < keep_probability < 1:
        raise ValueError(
            f"masks={masks}, cells={cells}, keep_probability={keep_probability}; wanted two masks, one cell, "
            "and a keep_probability between 0 and 1"
        )
    images, size = checked(images), (images.shape[2], images.shape[3])
    hidden = filling(images, fill)
    with scoring(network, objective, images, copies=masks) as score, torch.no_grad():
        # in float64: a map is a small difference of large sums
        shown = images.new_zeros(1, len(images), 1, *size, dtype=torch.float64)
        totals = shown.new_zeros(len(as_list(objective)), len(images))
        weighted = shown.new_zeros(*totals.shape, 1, *size)
        for part in score.parts(masks, progress=progress):
            numbers = torch.arange(part.copies.start, part.copies.stop, device=images.device)
            part_masks = _masks(seed, numbers, cells, keep_probability, size).to(images)
            mask_values, rows = part_masks[part.places - part.copies.start], part.rows
            values = score(hidden[rows] + mask_values * (images - hidden)[rows], rows)
            add_by_image(shown, mask_values[None], part.start)
            add_by_image(totals, values, part.start)
            add_by_image(weighted, values[..., None, None, None] * mask_values, part.start)
    means = (totals / masks)[:, :, None, None, None]
    # a pixel that no mask showed is not known to matter: 0
    maps = (weighted - means * shown) / shown.clamp(min=1e-6)
    return squeeze_single(maps.to(images), objective)


def _masks(
    seed: int, numbers: Int[Tensor, "m"], cells: int, keep_probability: float, size: tuple[int, int]
) -> Float[Tensor, "m 1 h w"]:
    """Grids of one more cell each way, enlarged, so that they can begin anywhere in a cell."""
    steps = [-(-side // cells) for side in size]
    drawn = words(seed, numbers, (cells + 1) ** 2 + 2)
    grids = (drawn[:, 2:] < round(keep_probability * 2**32)).float().view(-1, 1, cells + 1, cells + 1)
    large = F.interpolate(
        grids, size=[(cells + 1) * step for step in steps], mode="bilinear", align_corners=False
    )
    tops, lefts = ((drawn[:, k, None] * step) >> 32 for k, step in enumerate(steps))
    rows, columns = (torch.arange(side, device=drawn.device) for side in size)
    places = torch.arange(len(drawn), device=drawn.device)[:, None, None]
    return large[places, :, (tops + rows)[:, :, None], (lefts + columns)[:, None]].movedim(3, 1)
