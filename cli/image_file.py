"""One image file, read as by a run, or by default."""

import argparse
from pathlib import Path

from PIL import Image
from torch import Tensor

from fulgurite.data.arrays import ArrayReader
from fulgurite.data.decoding import read_image


def read_one(file: Path, channels: int, args: argparse.Namespace | None = None) -> Image.Image | Tensor:
    """The image in a file; of other channels than 1 or 3, or of .npy, an array.

    White and the loader are those of the run that `args` name, if it has any: see `network_of_run`.
    """
    white, loader = (vars(args or argparse.Namespace()).get(name) for name in ("white", "loader"))
    if loader or channels not in (1, 3) or file.suffix.lower() == ".npy":
        return ArrayReader(channels, white, loader)(file)
    return read_image(file, channels=channels, white=white)
