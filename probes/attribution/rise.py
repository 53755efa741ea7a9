"""RISE: attribution by random masks (Petsiuk et al. 2018)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.attribution.perturbations import Fill, drawn, filling, parts, scoring
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
        shown = images.new_zeros(len(images), 1, *size)
        totals = images.new_zeros(len(as_list(objective)), len(images))
        weighted = images.new_zeros(*totals.shape, 1, *size)
        for rows, places in parts(images, masks, progress=progress):
            veils = torch.empty(len(places), 1, *size)
            for own, place in zip(veils, places.tolist(), strict=True):
                own.copy_(_mask(cells, seen, size, drawn(seed, place)))
            veils = veils.to(images)
            values = score(hidden[rows] + veils * (images - hidden)[rows], rows)
            shown.index_add_(0, rows, veils)
            totals.index_add_(1, rows, values)
            for k, each in enumerate(values):
                weighted[k].index_add_(0, rows, each[:, None, None, None] * veils)
    means = (totals / masks)[:, :, None, None, None]
    # a pixel that no mask showed is not known to matter: 0
    return squeeze_single((weighted - means * shown) / shown.clamp(min=1e-6), objective)


def _mask(cells: int, seen: float, size: tuple[int, int], draw: torch.Generator) -> Float[Tensor, "1 h w"]:
    """A grid of one more cell each way, enlarged, so that it can begin anywhere in a cell."""
    steps = [-(-side // cells) for side in size]
    grid = (torch.rand(1, 1, cells + 1, cells + 1, generator=draw) < seen).float()
    large = F.interpolate(
        grid, size=[(cells + 1) * step for step in steps], mode="bilinear", align_corners=False
    )
    top, left = (int(torch.randint(step, (), generator=draw)) for step in steps)
    return large[0, :, top : top + size[0], left : left + size[1]]
