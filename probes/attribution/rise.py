"""RISE: attribution by random masks (Petsiuk et al. 2018)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.attribution.perturbations import Fill, add_by_image, filling, scoring
from fulgurite.probes.counter_random import words
from fulgurite.probes.objectives import Asked, as_list, squeeze_single


def rise(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Asked,
    *,
    masks: int = 4000,
    cells: int = 7,
    seen: float = 0.5,
    fill: Fill = "grey",
    seed: int = 0,
    progress: str | None = None,
) -> Float[Tensor, "*k n 1 h w"]:
    """How much larger the objective is, on average, where a pixel is seen than over all masks, signed.

    The paper's map less its mean: 0 is a pixel that does not matter. Each mask is a random grid of
    `cells` x `cells`, shifted and enlarged, that shows a cell with probability `seen`; all images of a batch
    are behind the same ones. Petsiuk et al. 2018, arxiv.org/abs/1806.07421, who take 4000 masks and more.
    Costs a forward pass for each mask.
    """
    if masks < 2 or cells < 1 or not 0 < seen < 1:
        raise ValueError(
            f"masks={masks}, cells={cells}, seen={seen}; wanted two masks, one cell, and seen between 0 and 1"
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
            own = _masks(seed, numbers, cells, seen, size).to(images)
            veils, rows = own[part.places - part.copies.start], part.rows
            values = score(hidden[rows] + veils * (images - hidden)[rows], rows)
            add_by_image(shown, veils[None], part.start)
            add_by_image(totals, values, part.start)
            add_by_image(weighted, values[..., None, None, None] * veils, part.start)
    means = (totals / masks)[:, :, None, None, None]
    # a pixel that no mask showed is not known to matter: 0
    maps = (weighted - means * shown) / shown.clamp(min=1e-6)
    return squeeze_single(maps.to(images), objective)


def _masks(
    seed: int, numbers: Int[Tensor, "m"], cells: int, seen: float, size: tuple[int, int]
) -> Float[Tensor, "m 1 h w"]:
    """Grids of one more cell each way, enlarged, so that they can begin anywhere in a cell."""
    steps = [-(-side // cells) for side in size]
    drawn = words(seed, numbers, (cells + 1) ** 2 + 2)
    grids = (drawn[:, 2:] < round(seen * 2**32)).float().view(-1, 1, cells + 1, cells + 1)
    large = F.interpolate(
        grids, size=[(cells + 1) * step for step in steps], mode="bilinear", align_corners=False
    )
    tops, lefts = ((drawn[:, k, None] * step) >> 32 for k, step in enumerate(steps))
    rows, columns = (torch.arange(side, device=drawn.device) for side in size)
    places = torch.arange(len(drawn), device=drawn.device)[:, None, None]
    return large[places, :, (tops + rows)[:, :, None], (lefts + columns)[:, None]].movedim(3, 1)
