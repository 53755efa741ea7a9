"""Photographs of the real data, for tests on real networks."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image

from fulgurite.data.crops import from_the_middle


def photographs(folder: Path, places: Iterable[int], side: int) -> torch.Tensor:
    """Some of two hundred photographs of ImageNet classes, in [0, 1]."""
    with zipfile.ZipFile(folder / "imagenet_samples_200_short256_q90.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg")))
        read = [Image.open(io.BytesIO(archive.read(names[place]))).convert("RGB") for place in places]
    return torch.stack([from_the_middle(side)(image) for image in read])
