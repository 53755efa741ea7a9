"""Cropping and resizing of photographs to squares: random for training, centred for evaluation."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2


def at_random(
    size: int, *, mirror: bool = True, smallest: float = 0.35, changes: Sequence[v2.Transform] = ()
) -> v2.Compose:
    """Frames a window of `smallest` to all of the image, mirrored half of the time, then makes `changes`."""
    window = v2.RandomResizedCrop(size, scale=(smallest, 1.0))
    return v2.Compose([window, *([v2.RandomHorizontalFlip()] if mirror else []), *changes, *_AS_TENSOR])


MARGIN = 256 / 224
"""The short side of a photograph, as a multiple of the crop's side, by default."""


def from_the_middle(size: int, *, margin: float = MARGIN) -> v2.Compose:
    """Crops the centre, after the short side is resized to `margin` times `size`."""
    return v2.Compose([_shortened, v2.Resize(round(size * margin)), v2.CenterCrop(size), *_AS_TENSOR])


def uncropped(longest: int | None) -> v2.Compose:
    """The whole image, in its proportions, its long side resized to `longest`, if given."""
    resize = [] if longest is None else [partial(_longest, side=longest)]
    return v2.Compose([*resize, *_AS_TENSOR])


def as_a_digit(size: int) -> v2.Compose:
    """Crops the centre, shrinks it to 8 x 8 pixels, as the digits have, and enlarges it as they are."""
    small = [_shortened, v2.Resize(8), v2.CenterCrop(8)]
    return v2.Compose([*small, *_AS_TENSOR, partial(_one_smoothly, size=size)])


def smoothly(images: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c size size"]:
    """The images enlarged to `size`, smoothly, so that no blocks show."""
    if images.shape[-1] == size:
        return images
    # bicubic overshoots
    return F.interpolate(images, size=size, mode="bicubic").clamp(0, 1)


def _shortened(image: Image.Image | Tensor) -> Image.Image | Tensor:
    """An image of extreme proportions without its ends, which a centre crop does not show.

    Resizing one of 1 x 60000 pixels would make 4 billion of them.
    """
    if isinstance(image, Tensor):  # the array of a file
        down, across = (max(0, (side - 8 * min(image.shape[1:])) // 2) for side in image.shape[1:])
        return image[:, down : image.shape[1] - down, across : image.shape[2] - across]
    limit = 8 * min(image.size)
    if max(image.size) <= limit:
        return image
    across, down = (max(0, (side - limit) // 2) for side in image.size)
    return image.crop((across, down, image.width - across, image.height - down))


def _longest(image: Image.Image | Tensor, side: int) -> Image.Image | Tensor:
    array = isinstance(image, Tensor)
    own = tuple(image.shape[1:]) if array else image.size[::-1]
    height, width = (max(1, round(side / max(own) * one)) for one in own)
    if array:
        return v2.functional.resize(image, [height, width])  # bilinear, which stays within [0, 1]
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _one_smoothly(image: Tensor, size: int) -> Tensor:
    return smoothly(image[None], size)[0]


_AS_TENSOR = (v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True))

FRAMINGS: Mapping[str, Callable[[int], v2.Compose]] = {
    "middle": from_the_middle,
    "whole": partial(from_the_middle, margin=1),
    "digit": as_a_digit,
}
"""The crop of evaluation images, by its name in data modules and in `run.json`."""
