"""Random transforms for robust synthesis: jitter, affine."""

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Transform = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]


def identity(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The images as they are."""
    return images


def jitter(by: int) -> Transform:
    """Rolls the images by up to `by` pixels in each direction, anew at each look, all of a batch alike."""

    def jittered(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        down, right = torch.randint(-by, by + 1, (2,)).tolist()
        return images.roll((down, right), (2, 3))

    return jittered


def affine(*, shift: float = 0.0, degrees: float = 0.0, zoom: float = 1.0) -> Transform:
    """Shifts by up to `shift` of the side, turns by up to `degrees`, zooms by up to `zoom`, at once.

    Drawn anew at each look, all of a batch alike; the edge is mirrored outwards.
    """

    def moved(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        down, right, turn, grow = (2 * torch.rand(4) - 1).tolist()
        angle, scale = torch.tensor(turn * degrees).deg2rad(), zoom**grow
        cos, sin = float(angle.cos()) / scale, float(angle.sin()) / scale
        height, width = images.shape[2:]
        # the grid counts in half sides, so a turn of an oblong must be told how long they are
        rows = [
            [cos, -sin * height / width, 2 * shift * right],
            [sin * width / height, cos, 2 * shift * down],
        ]
        grid = F.affine_grid(images.new_tensor([rows]), [1, *images.shape[1:]], align_corners=False)
        grid = grid.expand(len(images), -1, -1, -1)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    return moved


def unit_gradient(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The images as they are; the gradient that comes back is scaled to a root mean square of one per image.

    Penalties that sum over pixels then weigh alike on every network, at every stage of its training and at
    every size: to a gradient of length one they would weigh the more, the more pixels there are.
    """
    return _Levelled.apply(images)


def chain(*transforms: Transform) -> Transform:
    """One transform after the other."""
    return lambda images: reduce(lambda moved, transform: transform(moved), transforms, images)


class _Levelled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, images):
        return images.view_as(images)

    @staticmethod
    def backward(_ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
        return gradient * (gradient.shape[1:].numel() ** 0.5 / length.clamp_(min=1e-12))
