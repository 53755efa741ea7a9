"""Pictures of films as PNG files in tensors of bytes: checkpoints hold these, and load nothing that runs."""

import io

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from fulgurite.probes.render import RGB, from_pil, to_pil

LARGEST = 4096
"""The longer side of a picture that is read, at most, in pixels: ours are a quarter of it."""


def packed(pixels: UInt8[Tensor, "_ _ _"]) -> Tensor:
    """A PNG file, in colour or grey, as a tensor of bytes."""
    file = io.BytesIO()
    (to_pil(pixels) if len(pixels) == 3 else Image.fromarray(pixels[0].numpy())).save(file, "PNG")
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def unpacked(file: Tensor) -> RGB | None:
    """The picture; None if it is damaged, or larger than any of a film."""
    try:
        with Image.open(io.BytesIO(file.numpy().tobytes())) as image:
            return None if max(image.size) > LARGEST else from_pil(image)
    except (
        AttributeError,
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
    ):  # what Pillow raises of damaged PNGs
        return None
