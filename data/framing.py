"""How a photograph becomes a square tensor: framed at random to train on, in its middle to judge by."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageOps
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


_AS_TENSOR = (v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True))
