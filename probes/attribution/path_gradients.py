"""SmoothGrad and integrated gradients."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked, gradients
from fulgurite.probes.attribution.perturbations import drawn, parts, scores, scoring
from fulgurite.probes.batches import Batches, batch_size
from fulgurite.probes.objectives import Asked, as_list, squeeze_single

Baseline = float | Float[Tensor, "c h w"] | Float[Tensor, "n c h w"]


def smoothgrad(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Asked,
    *,
    draws: int = 25,
    spread: float = 0.15,
    seed: int = 0,
    progress: str | None = None,
) -> Float[Tensor, "*k n c h w"]:
    """The gradient averaged over noisy copies of each image, signed.

    The noise is Gaussian with standard deviation `spread`, in pixels, the same for each image of a batch; the
    paper finds 0.1 to 0.2 of the range best. Smilkov et al. 2017, arxiv.org/abs/1706.03825. Costs `draws`
    forward and backward passes.
    """
    if draws < 1 or spread < 0:
        raise ValueError(f"draws={draws}, spread={spread}; wanted at least 1 draw and no negative spread")

    images = checked(images)

    def noisy(rows: Tensor, places: Tensor) -> Tensor:
        noise = torch.empty(len(places), *images.shape[1:])
        for own, place in zip(noise, places.tolist(), strict=True):
            own.normal_(generator=drawn(seed, place))
        return images[rows] + spread * noise.to(images)

    return _averaged(
        network, images, objective, noisy, torch.full((draws,), 1 / draws, dtype=torch.float64), progress
    )


def integrated_gradients(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Asked,
    *,
    steps: int = 50,
    baseline: Baseline = 0.0,
    progress: str | None = None,
) -> Float[Tensor, "*k n c h w"]:
    """What each pixel adds to the objective on the straight way from `baseline` (black) to the image, signed.

    A map sums to the objective's difference between the two; `completeness_error` says how nearly. The path
    integral is Gauss and Legendre's over `steps` points. Sundararajan et al. 2017, arxiv.org/abs/1703.01365.
    Costs `steps` forward and backward passes.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}; wanted at least 1")
    images = checked(images)
    start = _start(images, baseline)
    points, weights = (torch.tensor(half / 2) for half in np.polynomial.legendre.leggauss(steps))
    points = points.to(images.dtype)

    def between(rows: Tensor, places: Tensor) -> Tensor:
        share = (points[places.cpu()] + 0.5).to(images)[:, None, None, None]
        return start[rows] + share * (images - start)[rows]

    return (images - start) * _averaged(network, images, objective, between, weights, progress)


def completeness_error(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Asked,
    maps: Float[Tensor, "*k n c h w"],
    *,
    baseline: Baseline = 0.0,
) -> Float[Tensor, "*k n"]:
    """By how much the sum of an integrated gradient misses the objective's difference from the baseline."""
    difference = scores(network, images, objective) - scores(network, _start(images, baseline), objective)
    return maps.sum((-3, -2, -1)) - difference


def _start(images: Tensor, baseline: Baseline) -> Tensor:
    start = baseline if isinstance(baseline, Tensor) else torch.tensor(float(baseline))
    return start.to(images).expand_as(images)


def _averaged(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    asked: Asked,
    copies: Callable[[Int[Tensor, "m"], Int[Tensor, "m"]], Float[Tensor, "m c h w"]],
    weights: Float[Tensor, "s"],
    progress: str | None,
) -> Float[Tensor, "*k n c h w"]:
    weights = weights.to(images)
    with scoring(network, asked, images, copies=len(weights)) as score:
        maps = images.new_zeros(len(as_list(asked)), *images.shape)
        batches = Batches(batch_size(images))
        for rows, places in parts(images, len(weights), progress=progress):

            def found(part: slice, rows: Tensor = rows, places: Tensor = places) -> Tensor:
                points = copies(rows[part], places[part]).requires_grad_()
                # sum, not mean: each image's gradient must not depend on its batch
                return gradients([values.sum() for values in score(points, rows[part])], points)

            for part, each in batches.over(len(rows), found):
                for k, own in enumerate(each):
                    maps[k].index_add_(0, rows[part], own * weights[places[part]][:, None, None, None])
    return squeeze_single(maps, asked)
