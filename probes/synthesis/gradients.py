"""Gradients of an objective with respect to images: whole, or tile by tile in bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Score = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n"]]
Gradient = Callable[[Score, Float[Tensor, "n c h w"]], tuple[Float[Tensor, "n"], Float[Tensor, "n c h w"]]]
"""The values of a score and its gradient with respect to images."""


def whole(
    score: Score, images: Float[Tensor, "n c h w"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n c h w"]]:
    """The score's values and its gradient, the whole images at once."""
    shown = images.detach().requires_grad_()
    values = score(shown)
    # sum, not mean: an image's gradient must not depend on its batch
    (gradient,) = torch.autograd.grad(values.sum(), shown)
    return values.detach(), gradient


def tiled(side: int, *, margin: int | None = None) -> Gradient:
    """The score's gradient tile by tile, so that memory depends on the tile, not on the images.

    Each pixel's gradient comes from one tile, in which `margin` pixels on every side see the pixel's
    surroundings and give no gradient of their own. So there are no seams where the margin is as large as the
    receptive field; where it is not, each step places the tiles again, at random, and what is left of seams
    averages out. The score is computed for each tile as for an image: use one that sums or averages over
    positions (a channel, an energy), not a class at one position. Its values are averages over the tiles, by
    their area. Images no larger than a tile are processed whole.

    Args:
        side: of a tile, in pixels, margins included.
        margin: a quarter of the side without it.

    Raises:
        ValueError: the margins cover the whole tile.
    """
    margin = side // 4 if margin is None else margin
    if side < 1 or margin < 0 or 2 * margin >= side:
        raise ValueError(f"tiles of {side} pixels with margins of {margin}; wanted more than both margins")
    return _Tiled(side, margin)


@dataclass(frozen=True)
class _Tiled:
    side: int
    margin: int

    def __call__(
        self, score: Score, images: Float[Tensor, "n c h w"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n c h w"]]:
        side, (height, width) = self.side, images.shape[2:]
        if max(height, width) <= side:
            return whole(score, images)
        values, gradient_map = images.new_zeros(len(images)), torch.empty_like(images)
        across = list(_cells(width, side, self.margin))
        for top, rows in _cells(height, side, self.margin):
            for left, columns in across:
                own, found = whole(score, images[:, :, top : top + side, left : left + side])
                gradient_map[:, :, rows, columns] = found[:, :, _within(rows, top), _within(columns, left)]
                values += own * ((rows.stop - rows.start) * (columns.stop - columns.start) / (height * width))
        return values, gradient_map


def shown_at_once(gradient: Gradient, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _ _"]:
    """The part of the images that goes through the network at once."""
    return images[:, :, : gradient.side, : gradient.side] if isinstance(gradient, _Tiled) else images


def _cells(length: int, side: int, margin: int) -> Iterator[tuple[int, slice]]:
    """Where tiles begin along one axis, and the pixels whose gradient each gives; laid at random."""
    inner = side - 2 * margin
    if length <= side:
        yield 0, slice(0, length)
        return
    start = -int(torch.randint(inner, ()))
    for begin in range(start, length, inner):
        cell = slice(max(0, begin), min(length, begin + inner))
        yield max(0, min(begin - margin, length - side)), cell


def _within(cell: slice, start: int) -> slice:
    return slice(cell.start - start, cell.stop - start)
