"""What a question from the shell is about: photographs, and a network with the names of its classes."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from fulgurite.data.framing import from_the_middle, upright
from fulgurite.models.networks import build, check_takes, class_names, input_size, told_by
from fulgurite.probes import atomic
from fulgurite.probes.record import nearest

FILES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
AT_ONCE = 8  # images


def check_writable(out: Path) -> None:
    """See that a picture can be written there, by beginning to.

    Raises:
        ValueError: it cannot, or it would be no PNG or JPEG.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out {out}; wanted a name that ends in .png or .jpg")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    try:
        atomic.check_writable(out)
    except OSError:
        raise ValueError(f"--out {out}: nothing can be written there") from None


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The images, and those in the folders.

    Raises:
        ValueError: there are none.
    """
    found: list[Path] = []
    for path in paths:
        inside = (
            sorted(file for file in path.rglob("*") if file.suffix.lower() in FILES)
            if path.is_dir()
            else [path]
        )
        if not inside or not inside[0].is_file():
            raise ValueError(f"no images in {path}" if path.is_dir() else f"no image {path}")
        found += inside
    return found


def images_of(
    files: Sequence[Path], named: Sequence[Path], size: int, channels: int
) -> tuple[list[str], Float[Tensor, "n c h w"]]:
    """The images that can be read, and what to call them.

    A file that was named must be read; one in a folder is left out with a note.
    """
    read: dict[Path, Float[Tensor, "c h w"]] = {}
    for file in files:
        try:
            read[file] = _image(file, size, channels)
        except ValueError as error:
            if file in named:
                raise
            print(f"note: left out: {error}", file=sys.stderr)
    if not read:
        raise ValueError("none of the images can be read")
    stems = [file.stem for file in read]
    called = [file.stem if stems.count(file.stem) == 1 else str(file) for file in read]
    return called, torch.stack(list(read.values()))


def in_parts(images: Float[Tensor, "n c h w"], device: str) -> Iterator[tuple[int, Float[Tensor, "m c h w"]]]:
    """A few images at a time, on the device, and the place of the first of them."""
    few = len(images) <= AT_ONCE
    for start in tqdm(range(0, len(images), AT_ONCE), "images", delay=3, leave=False, disable=few):
        yield start, images[start : start + AT_ONCE].to(device)


def network_of(asked: argparse.Namespace) -> tuple[nn.Module, Sequence[str], int, int]:
    """The network with its weights, its classes' names, and what images it takes: their side and channels."""
    classes, channels = told_by(asked.network, asked.weights) if asked.weights else (1000, 3)
    try:
        network = build(
            asked.network,
            classes=classes,
            channels=channels,
            pretrained=asked.weights is None,
            weights=asked.weights,
        )
    except ValueError as error:
        if asked.weights is None and "weights" in str(error):
            raise ValueError(f"{error}: --weights FILE.safetensors") from None
        raise
    names = _lines(asked.classes) if asked.classes else class_names(classes)
    if len(names) != classes:
        raise ValueError(
            f"--classes {asked.classes}: {len(names)} names for the {classes} classes of {asked.network}"
        )
    size = asked.size or input_size(asked.network)
    check_takes(network, channels, size)
    try:
        return network.eval().to(asked.device), names, size, channels
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {asked.device}: {str(error).splitlines()[0]}") from None


def class_of(word: str, names: Sequence[str], *, option: str = "target") -> int:
    """A class by its name or number.

    Raises:
        ValueError: there is none, or several are called so.
    """
    if word.isdecimal() and int(word) >= len(names):
        raise ValueError(f"no class {word}; wanted a name, or a number from 0 to {len(names) - 1}")
    alike = [number for number, name in enumerate(names) if name.lower() == word.lower()]
    if len(alike) > 1:
        raise ValueError(f"--{option} {word!r} is the name of classes {alike}; give the number")
    if not alike and word.isdecimal():
        return int(word)
    if not alike:
        raise ValueError(f"no class {word!r} among {len(names)}; {nearest(word, names)}, or a number")
    return alike[0]


def _image(file: Path, size: int, channels: int) -> Float[Tensor, "c h w"]:
    try:
        with Image.open(file) as image:
            return from_the_middle(size)(upright(image, channels=channels))
    except OSError as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from None


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no text; wanted the names of the classes, one a line") from None
