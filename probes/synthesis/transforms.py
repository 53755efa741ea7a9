"""Random transforms for feature visualization: jitter, shifts, rotations, scaling, Lucid's standard chain."""

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.synthesis.arguments import check_between

Transform = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]


def identity(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The images as they are."""
    return images


def jitter(by: int) -> Transform:
    """Rolls images by up to `by` pixels in each direction, drawn at each step, the same for a batch.

    Raises:
        ValueError: a negative number.
    """
    check_between("by", by, 0)

    def jittered(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        down, right = torch.randint(-by, by + 1, (2,)).tolist()
        return images.roll((down, right), (2, 3))

    return jittered


def affine(
    *,
    shift: float = 0.0,
    degrees: float = 0.0,
    zoom: float | tuple[float, float] = 1.0,
    each: bool = False,
) -> Transform:
    """Shifts by up to `shift` of the side, turns by up to `degrees`, zooms by up to `zoom`, at once.

    Drawn again at each step; the edge is mirrored outwards. One number for `zoom` goes both ways, enlarging
    and shrinking by up to it; two are the lowest and the highest magnification, so that (1, 1.3) only
    enlarges. All images of a batch move alike, so that a batch gives what its images give one by one; with
    `each`, every image has its own draw.
    """
    low, high = zoom if isinstance(zoom, tuple) else (1 / max(zoom, 1e-9), zoom)
    if not 0 < low <= high:
        raise ValueError(f"zoom={zoom}; wanted at least 1, or the lowest and the highest magnification")

    def moved(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        height, width = images.shape[2:]
        maps = list[list[list[float]]]()
        for draw in (2 * torch.rand(max(1, len(images)) if each else 1, 4) - 1).tolist():
            down, right, turn, grow = draw
            angle, scale = torch.tensor(turn * degrees).deg2rad(), low * (high / low) ** ((grow + 1) / 2)
            cos, sin = float(angle.cos()) / scale, float(angle.sin()) / scale
            # the grid counts in half sides, so a rotation of an oblong needs their ratio
            maps.append(
                [
                    [cos, -sin * height / width, 2 * shift * right],
                    [sin * width / height, cos, 2 * shift * down],
                ]
            )
        return _resampled(images, maps)

    return moved


def noise(deviation: float) -> Transform:
    """Adds Gaussian noise of this standard deviation, drawn again at each step for each image of a batch.

    Raises:
        ValueError: a negative deviation.
    """
    check_between("deviation", deviation, 0)
    return lambda images: images + deviation * torch.randn_like(images)


def random_crops(low: float, high: float) -> Transform:
    """Crops of `low` to `high` of the side, brought back to the image's size; the same for a batch.

    Their centres are drawn from a Gaussian around the image's, and the edge is mirrored outwards.
    """
    if not 0 < low <= high <= 1:
        raise ValueError(f"low={low:g}, high={high:g}; wanted shares of the side, 0 < low <= high <= 1")

    def cropped(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        share = low + (high - low) * torch.rand(()).item()
        down, right = (2 * 0.15 * torch.randn(2)).clamp(share - 1, 1 - share).tolist()
        return _resampled(images, [[[share, 0.0, right], [0.0, share, down]]])

    return cropped


def padding(by: int, *, level: float = 0.5) -> Transform:
    """A border of `by` pixels of one level on every side.

    Raises:
        ValueError: a negative width, or a level outside [0, 1].
    """
    check_between("by", by, 0)
    check_between("level", level, 0, 1)
    return lambda images: F.pad(images, (by, by, by, by), value=level)


def scaling(low: float, high: float) -> Transform:
    """Resizes the images by a factor, drawn evenly and drawn again at each step, the same for a batch.

    Raises:
        ValueError: a factor that is not above 0, or the highest below the lowest.
    """
    check_between("low", low, 0, above=True)
    check_between("high", high, low)

    def scaled(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        factor = low + (high - low) * torch.rand(()).item()
        size = [max(1, round(factor * side)) for side in images.shape[2:]]
        return F.interpolate(images, size, mode="bilinear", align_corners=False)

    return scaled


def lucid() -> Transform:
    """The standard chain of Lucid: padding 12, jitter 8, scaling by 0.9 to 1.1, up to 10 degrees, jitter 4.

    Networks must take images of any size. One fused `affine` costs a fifth. Olah et al. 2017,
    distill.pub/2017/feature-visualization.
    """
    return chain(padding(12), jitter(8), scaling(0.9, 1.1), affine(degrees=10), jitter(4))


TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "none": lambda: identity,
    "affine": lambda: affine(shift=0.05, degrees=5, zoom=1.1),
    "lucid": lucid,
}
"""Transforms by name."""


def chain(*transforms: Transform) -> Transform:
    """One transform after the other."""
    return lambda images: reduce(lambda moved, transform: transform(moved), transforms, images)


def _resampled(images: Tensor, maps: list[list[list[float]]]) -> Tensor:
    """The images under one affine map, or one for each, from coordinates of the result to the image."""
    moves = torch.tensor(maps, dtype=images.dtype)
    if images.is_cuda:  # or the copy would wait for the device
        moves = moves.pin_memory().to(images.device, non_blocking=True)
    grid = F.affine_grid(moves, [len(maps), *images.shape[1:]], align_corners=False)
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
