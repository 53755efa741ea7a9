"""Image priors, penalties taken off an objective: L2 distance and total variation."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from fulgurite.probes.per_image import Given

Prior = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n"]]


def l2(weight: float, *, background: Sequence[float] = (0.0,)) -> Prior:
    """`weight` times the squared distance from a plain `background`, a value per channel; sums over pixels.

    Simonyan et al. 2014, arxiv.org/abs/1312.6034.
    """
    level = plain(background)
    return lambda images: weight * (images - level(images)).square().flatten(1).sum(1)


def total_variation(weight: float) -> Prior:
    """`weight` times the squared differences of neighbouring pixels; sums over pixels.

    The case beta = 2 of Mahendran & Vedaldi 2015, arxiv.org/abs/1412.0035.
    """

    return lambda images: weight * _SquaredSteps.apply(images)


def plain(background: Sequence[float]) -> Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "c 1 1"]]:
    """The values per channel of a plain image, to go with images of any type on any device."""
    level = Given(torch.tensor(list(background))[:, None, None], many=False)
    return lambda images: level.on(images.device).to(images.dtype)


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
