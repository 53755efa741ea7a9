"""SmoothGrad and integrated gradients."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked, gradients
from fulgurite.probes.attribution.perturbations import Part, add_by_image, scores, scoring
from fulgurite.probes.counter_random import normal
from fulgurite.probes.objectives import Objectives, as_list, squeeze_single

Baseline = float | Float[Tensor, "c h w"] | Float[Tensor, "n c h w"]


def smoothgrad(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
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

    noise = _Noise(seed, draws, images)

    def noisy(part: Part) -> Tensor:
        return images[part.rows] + spread * noise.of(part)

    return _averaged(
        network, images, objective, noisy, torch.full((draws,), 1 / draws, dtype=torch.float64), progress
    )


def integrated_gradients(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    *,
    steps: int = 50,
    baseline: Baseline = 0.0,
    progress: str | None = None,
) -> Float[Tensor, "*k n c h w"]:
    """What each pixel adds to the objective along the line from `baseline` (black) to the image, signed.

    A map sums to the objective's difference between the two; `completeness_error` measures how closely. The
    path integral is a Gauss-Legendre sum of `steps` points. Sundararajan et al. 2017,
    arxiv.org/abs/1703.01365. Costs `steps` forward and backward passes.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}; wanted at least 1")
    images = checked(images)
    start = _start(images, baseline)
    points, weights = (torch.tensor(half / 2) for half in np.polynomial.legendre.leggauss(steps))
    points = (points.to(images.dtype) + 0.5).to(images.device)

    def between(part: Part) -> Tensor:
        share = points[part.places][:, None, None, None]
        return start[part.rows] + share * (images - start)[part.rows]

    return (images - start) * _averaged(network, images, objective, between, weights, progress)


def completeness_error(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    maps: Float[Tensor, "*k n c h w"],
    *,
    baseline: Baseline = 0.0,
) -> Float[Tensor, "*k n"]:
    """Completeness error, signed: the sum of integrated gradients less the difference of the objective."""
    difference = scores(network, images, objective) - scores(network, _start(images, baseline), objective)
    return maps.sum((-3, -2, -1)) - difference


def _start(images: Tensor, baseline: Baseline) -> Tensor:
    start = baseline if isinstance(baseline, Tensor) else torch.tensor(float(baseline))
    return start.to(images).expand_as(images)


def _averaged(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    copies: Callable[[Part], Float[Tensor, "m c h w"]],
    weights: Float[Tensor, "s"],
    progress: str | None,
) -> Float[Tensor, "*k n c h w"]:
    weights = weights.to(images)
    with scoring(network, objective, images, copies=len(weights), gradients=True) as score:
        maps = images.new_zeros(len(as_list(objective)), *images.shape)
        for part in score.parts(len(weights), progress=progress):
            points, shares = copies(part), weights[part.places][:, None, None, None]

            def found(few: slice, points: Tensor = points, rows: Tensor = part.rows) -> Tensor:
                leaf = points[few].requires_grad_()
                # sum, not mean: each image's gradient must not depend on its batch
                return gradients([values.sum() for values in score(leaf, rows[few])], leaf)

            for few, each in score.batches.over(len(points), found):
                add_by_image(maps, each * shares[few], part.start + few.start)
    return squeeze_single(maps, objective)


class _Noise:
    """The noise of each draw: drawn for many at once, as it takes a hundred small steps."""

    def __init__(self, seed: int, draws: int, images: Tensor):
        self.seed, self.draws, self.images = seed, draws, images
        room = 2**22 if images.device.type == "cuda" else 2**18  # numbers: what caches hold, on a CPU
        self.many = max(1, room // max(1, math.prod(images.shape[1:])))
        self.known, self.bank = range(0), images.new_empty(0, *images.shape[1:])

    def of(self, part: Part) -> Tensor:
        """The noise of the part's copies, one for each of its pairs."""
        wanted = part.copies
        if wanted.start not in self.known or wanted[-1] not in self.known:
            stop = max(wanted.stop, min(wanted.start + self.many, self.draws))
            self.known = range(wanted.start, stop)
            numbers = torch.arange(wanted.start, stop, device=self.images.device)
            self.bank = normal(self.seed, numbers, *self.images.shape[1:]).to(self.images)
        return self.bank[part.places - self.known.start]
