"""Tar shards of grey images whose shade is their number, as tests make them."""

import importlib.util
import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from fulgurite.data.shards import Shards

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("webdataset") is None, reason="webdataset is missing"
)


def packed(path: Path, **files: bytes | str) -> Path:
    """A tar of these files; `__` is the dot in a name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            content = content.encode() if isinstance(content, str) else content
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def image(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (20, 16), shade).save(file, "PNG")
    return file.getvalue()


def fill(folder: Path, sizes: tuple[int, ...], first: int = 0, labels=("0", "1")) -> None:
    """Shards of this many images, each of another shade and of the class of its parity."""
    shade = first
    for number, size in enumerate(sizes):
        files = {}
        for _ in range(size):
            files[f"{shade:04d}__cls"] = labels[shade % len(labels)]
            files[f"{shade:04d}__png"] = image(shade)
            shade += 1
        packed(folder / f"{number:03d}.tar", **files)


def made(path, **knobs):
    return Shards(path, **{"size": 8, "augment": False, "batch_size": 4, **knobs})


def shades(loader):
    return [[round(float(image.mean()) * 255) for image in images] for images, _ in loader]


def flat(batches):
    return [shade for batch in batches for shade in batch]
