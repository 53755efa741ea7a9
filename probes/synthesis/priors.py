"""Image priors, penalties taken off an objective: L2 distance, bounded range and total variation."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulgurite.probes.per_image import PerImage
from fulgurite.probes.synthesis.arguments import check_between

Prior = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n"]]


_TINY = 1e-20  # its square root and its powers differ from 0 in float32


def l2(weight: float, *, background: Sequence[float] = (0.0,)) -> Prior:
    """`weight` times the squared distance from a plain `background`, a value per channel; sums over pixels.

    Simonyan et al. 2014, arxiv.org/abs/1312.6034.

    Raises:
        ValueError: a negative weight.
    """
    check_between("weight", weight, 0)
    level = plain(background)
    return lambda images: weight * (images - level(images)).square().flatten(1).sum(1)


def bounded_range(weight: float, *, alpha: float = 6.0, background: Sequence[float] = (0.5,)) -> Prior:
    """`weight` times each pixel's distance from a `background`, to the power of `alpha`; sums over pixels.

    The distance is the root mean square over the channels, counted in half ranges, so that 1 is black or
    white on mid-grey: a large `alpha` leaves what is well within the range alone, and holds back pixels that
    leave it. Mahendran & Vedaldi 2015 and 2016, arxiv.org/abs/1412.0035 and 1512.02017.

    Raises:
        ValueError: `alpha` is below 1, or a negative weight.
    """
    check_between("weight", weight, 0)
    if alpha < 1:
        raise ValueError(f"alpha={alpha:g}; wanted a power of at least 1")
    level = plain(background)

    def out_of_range(images: Tensor) -> Tensor:
        squares = (2 * (images - level(images))).square().mean(1)
        return weight * _power(squares, alpha / 2).flatten(1).sum(1)

    return out_of_range


def total_variation(weight: float, *, beta: float = 2.0, linear: float = 0.0) -> Prior:
    """`weight` times the length of the image gradient, to the power of `beta`; sums over pixels, channels.

    A pixel's gradient is its differences from the pixels below and to its right; none goes across the edge.
    `beta` = 2 sums squared differences and smooths; `beta` = 1 keeps edges, and lets single pixels
    stand out (spikes). `linear` times the lengths themselves are added: their pull on faint dots is as strong
    as on bright ones. Mahendran & Vedaldi 2015, arxiv.org/abs/1412.0035.

    Raises:
        ValueError: `beta` is below 1, or a negative weight.
    """
    check_between("weight", weight, 0)
    check_between("linear", linear, 0)
    if beta < 1:
        raise ValueError(f"beta={beta:g}; wanted a power of at least 1")
    if beta == 2 and not linear:
        return lambda images: weight * _SquaredSteps.apply(images)
    terms = [(weight, beta), *([(linear, 1.0)] if linear else [])]
    return lambda images: _Lengths.apply(images, terms)


def smallness(side: int) -> float:
    """How much an image of this side is one of few pixels: 1 up to 32, falling to 0 at 64 and above."""
    return min(1.0, max(0.0, 1 - math.log2(side / 32)))


def plain(background: Sequence[float]) -> Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "c 1 1"]]:
    """The values per channel of a plain image, to go with images of any type on any device."""
    level = PerImage(torch.tensor(list(background))[:, None, None], many=False)
    return lambda images: level.on(images.device).to(images.dtype)


def _power(squares: Tensor, exponent: float) -> Tensor:
    """A power of what is not negative, with slope 0 at 0, where that of a square root is infinite."""
    return squares.clamp(min=_TINY) ** exponent - _TINY**exponent


class _SquaredSteps(torch.autograd.Function):
    """Squared differences of neighbours, summed; its gradient by hand, in half the time of autograd's."""

    @staticmethod
    def forward(ctx, images):
        down, across = images.diff(dim=2), images.diff(dim=3)
        ctx.save_for_backward(down, across)
        return down.flatten(1).square().sum(1) + across.flatten(1).square().sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grads):  # pyright: ignore[reportIncompatibleMethodOverride]
        down, across = ctx.saved_tensors
        gradient = F.pad(down, (0, 0, 1, 0))
        gradient[:, :, :-1] -= down
        gradient[:, :, :, 1:] += across
        gradient[:, :, :, :-1] -= across
        return gradient.mul_(2 * grads[:, None, None, None])


class _Lengths(torch.autograd.Function):
    """Powers of the lengths of the image gradient, weighted and summed; its gradient by hand."""

    @staticmethod
    def forward(ctx, images, terms):
        down, across = F.pad(images.diff(dim=2), (0, 0, 0, 1)), F.pad(images.diff(dim=3), (0, 1))
        squares = down.square().addcmul_(across, across).clamp_(min=_TINY)
        values, slopes = torch.zeros_like(squares), torch.zeros_like(squares)
        for weight, power in terms:
            powers = squares.pow(power / 2)
            values.add_(powers, alpha=weight)
            slopes.addcdiv_(powers, squares, value=weight * power)
        slopes.mul_(squares > _TINY)
        ctx.save_for_backward(down.mul_(slopes), across.mul_(slopes))
        nothing = sum(weight * _TINY ** (power / 2) for weight, power in terms)
        return values.sum((1, 2, 3)) - nothing * images.shape[1:].numel()

    @staticmethod
    @once_differentiable
    def backward(ctx, grads):  # pyright: ignore[reportIncompatibleMethodOverride]
        down, across = ctx.saved_tensors
        gradient = down + across
        gradient[:, :, 1:] -= down[:, :, :-1]
        gradient[:, :, :, 1:] -= across[:, :, :, :-1]
        return gradient.mul_(-grads[:, None, None, None]), None
