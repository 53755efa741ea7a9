"""What an image costs: a penalty per image, taken off the objective."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Prior = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n"]]


def l2(weight: float, *, ground: Sequence[float] = (0.0,)) -> Prior:
    """`weight` times the squared distance from a plain `ground`, a value per channel; sums over pixels.

    Simonyan et al. 2014, arxiv.org/abs/1312.6034.
    """
    level = torch.tensor(list(ground))[:, None, None]
    return lambda images: weight * (images - level.to(images)).square().flatten(1).sum(1)


def total_variation(weight: float) -> Prior:
    """`weight` times the squared differences of neighbouring pixels; sums over pixels.

    The case beta = 2 of Mahendran & Vedaldi 2015, arxiv.org/abs/1412.0035.
    """

    def variation(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
        steps = images.diff(dim=2).square().flatten(1).sum(1) + images.diff(dim=3).square().flatten(1).sum(1)
        return weight * steps

    return variation
