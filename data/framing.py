"""How a photograph becomes a square tensor: framed at random to train on, in its middle to judge by."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2


def upright(image: Image.Image, *, channels: int) -> Image.Image:
    """The image as its camera was held, in grey (1 channel) or colour (3), transparency laid on white."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        # 16 bits a pixel: PIL would clip at 255 instead of scaling
        image = image.convert("I").point([value / 256 for value in range(65536)], "L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def at_random(
    size: int, *, mirror: bool = True, smallest: float = 0.35, changes: Sequence[v2.Transform] = ()
) -> v2.Compose:
    """Frames a window of `smallest` to all of the image, mirrored half of the time, then makes `changes`."""
    window = v2.RandomResizedCrop(size, scale=(smallest, 1.0))
    return v2.Compose([window, *([v2.RandomHorizontalFlip()] if mirror else []), *changes, *_AS_TENSOR])


def from_the_middle(size: int, *, margin: float = 256 / 224) -> v2.Compose:
    """Frames the middle, after the short side has been brought to `margin` times `size`."""
    return v2.Compose([v2.Resize(round(size * margin)), v2.CenterCrop(size), *_AS_TENSOR])


def as_a_digit(size: int) -> v2.Compose:
    """Frames the middle as 8 x 8 pixels, which is what the digits have, and enlarges them as those are."""
    return v2.Compose([v2.Resize(8), v2.CenterCrop(8), *_AS_TENSOR, partial(_one_smoothly, size=size)])


def smoothly(images: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c size size"]:
    """The images enlarged to `size`, which their pixels do not show at."""
    if images.shape[-1] == size:
        return images
    # bicubic overshoots
    return F.interpolate(images, size=size, mode="bicubic").clamp(0, 1)


def _one_smoothly(image: Tensor, size: int) -> Tensor:
    return smoothly(image[None], size)[0]


_AS_TENSOR = (v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True))

FRAMINGS: Mapping[str, Callable[[int], v2.Compose]] = {
    "middle": from_the_middle,
    "whole": partial(from_the_middle, margin=1),
    "digit": as_a_digit,
}
"""How a source frames what it judges by, by the name that a source and a run give it."""
