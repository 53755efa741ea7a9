"""Masks of image files: where the object is, from a folder of pictures of the same names."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from fulgurite.data.decoding import read_image
from fulgurite.data.image_files import images_below, printable


def masks_of(
    folder: Path, files: Sequence[Path], cut: Callable[[Image.Image], Tensor]
) -> Bool[Tensor, "n h w"]:
    """The mask of each image, cropped as the image is.

    Raises:
        ValueError: there is none, or it is of another size than the image.
    """
    if not folder.is_dir():
        raise ValueError(f"--masks {printable(folder)}: there is no such folder")
    known = {file.stem: file for file in images_below(folder)}
    masks = []
    for file in files:
        if file.stem not in known:
            raise ValueError(f"--masks {printable(folder)}: no mask for {printable(file)}; wanted its name")
        mask, image = read_image(known[file.stem], channels=1), read_image(file, channels=1)
        if mask.size != image.size:
            raise ValueError(
                f"mask {printable(known[file.stem])} is {mask.width} x {mask.height} and its image "
                f"{image.width} x {image.height}; wanted the same size"
            )
        inside = mask.point(lambda level: 255 if level else 0)
        masks.append(cut(inside)[0] > 0.5)
        if not bool(masks[-1].any()):
            print(f"note: the mask of {printable(file)} is empty, or lies outside the crop", file=sys.stderr)
    return torch.stack(masks)


def outlined(image: Float[Tensor, "c h w"], mask: Bool[Tensor, "h w"]) -> Float[Tensor, "c h w"]:
    """The image with the edge of the mask in white, and next to it, off the object, in black."""
    inside = mask[None].float()
    shrunk, grown = -F.max_pool2d(-inside, 3, 1, 1), F.max_pool2d(inside, 3, 1, 1)
    white, black = (inside > shrunk).to(image.device), (grown > inside).to(image.device)
    return torch.where(white, 1.0, torch.where(black, 0.0, image))
