"""Regularisers applied to images after each step: clamp, decay, blur, clipping, projection into a ball.

Decay, blur and the two clippings are the regularisers of Yosinski et al. 2015, arxiv.org/abs/1506.06579.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.per_image import PerImage
from fulgurite.probes.synthesis.arguments import check_between
from fulgurite.probes.synthesis.priors import plain


class Step(NamedTuple):
    """A step that was just made: its number, from 1 on, and which rows of the canvas the images are."""

    number: int
    rows: Int[Tensor, "n"]


After = Callable[[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"], Step], Float[Tensor, "n c h w"]]
"""A function from the images after a step, and its gradient, to the new images."""


def clamp(low: float = 0.0, high: float = 1.0) -> After:
    """Every value cut off at `low` and `high`.

    Raises:
        ValueError: `low` is not below `high`.
    """
    if not low < high:
        raise ValueError(f"low={low}, high={high}; wanted a low below the high")
    return lambda images, _gradient, _step: images.clamp(low, high)


def decay(rate: float, *, background: Sequence[float] = (0.0,)) -> After:
    """Every pixel moved by this part of its distance towards a plain background, a value per channel.

    Raises:
        ValueError: a rate outside [0, 1].
    """
    check_between("rate", rate, 0, 1)
    level = plain(background)
    return lambda images, _gradient, _step: images.lerp(level(images).expand_as(images), rate)


def blur(sigma: float, *, every: int = 4) -> After:
    """A Gaussian blur of `sigma` pixels after every `every` steps; the edge is mirrored outwards."""
    if sigma <= 0 or every < 1:
        raise ValueError(f"sigma={sigma}, every={every}; wanted sigma above 0, and every at least 1 step")

    def blurred(images: Tensor, gradient: Tensor, step: Step) -> Tensor:
        del gradient
        return gaussian(images, sigma) if step.number % every == 0 else images

    return blurred


def clip_small_norms(share: float, *, background: Sequence[float] = (0.0,)) -> After:
    """This share of each image's pixels, those nearest to the background, become the background."""
    level = plain(background)

    def clipped(images: Tensor, gradient: Tensor, step: Step) -> Tensor:
        del gradient, step
        background_level = level(images)
        return _smallest_become(
            (images - background_level).norm(dim=1, keepdim=True), share, images, background_level
        )

    return _checked(share, clipped)


def clip_small_contributions(share: float, *, background: Sequence[float] = (0.0,)) -> After:
    """This share of each image's pixels, those that matter least to the objective, become the background.

    A pixel's contribution is its difference from the background times the gradient, summed over channels, as
    an absolute value.
    """
    level = plain(background)

    def clipped(images: Tensor, gradient: Tensor, step: Step) -> Tensor:
        del step
        background_level = level(images)
        part = ((images - background_level) * gradient).sum(1, keepdim=True).abs()
        return _smallest_become(part, share, images, background_level)

    return _checked(share, clipped)


def within(threat: Threat, start: Float[Tensor, "m c h w"]) -> After:
    """The images projected into the ball of a threat around the images of the canvas at the start.

    With normalised steps this is projected gradient ascent: image synthesis with robust networks (Santurkar
    et al. 2019, arxiv.org/abs/1906.09453). `L2` waits for a GPU at each step.
    """
    centres = PerImage(start, many=True)

    def projected(images: Tensor, gradient: Tensor, step: Step) -> Tensor:
        del gradient
        centre = centres.on(images.device)[step.rows].to(images.dtype)
        if centre.shape != images.shape:
            raise ValueError(f"balls around images {(*start.shape,)}, but the canvas has {(*images.shape,)}")
        return threat.project(images, centre)

    return projected


def gaussian(images: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """The images under a Gaussian blur of `sigma` pixels, cut off at three; the edge is mirrored outwards."""
    for dim in (2, 3):
        half_width = min(math.ceil(3 * sigma), images.shape[dim] - 1)
        offsets = torch.arange(-half_width, half_width + 1, dtype=images.dtype, device=images.device)
        weights = (-offsets.square() / (2 * sigma**2)).exp()
        kernel = (weights / weights.sum()).view((1, 1, -1, 1) if dim == 2 else (1, 1, 1, -1))
        padding = (0, 0, half_width, half_width) if dim == 2 else (half_width, half_width, 0, 0)
        padded = F.pad(images, padding, mode="reflect")
        images = F.conv2d(padded.flatten(0, 1)[:, None], kernel).view_as(images)
    return images


def _smallest_become(sizes: Tensor, share: float, images: Tensor, background_level: Tensor) -> Tensor:
    flat = sizes.flatten(1)
    count = round(share * flat.shape[1])
    if not count:
        return images
    least = flat.kthvalue(count, 1).values[:, None, None, None]
    return torch.where(sizes <= least, background_level, images)


def _checked(share: float, after: After) -> After:
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}; wanted a share of the pixels, in [0, 1]")
    return after
