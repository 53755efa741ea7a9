"""Command-line inputs: image files, the network with its weights, class names."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli.image_file import read_one
from fulgurite.cli.image_names import names_of
from fulgurite.cli.image_options import lines_of
from fulgurite.cli.network_of_run import is_run, network_of_run, on_device
from fulgurite.data.crops import from_the_middle
from fulgurite.data.image_files import ENDINGS, images_by_real_path, printable
from fulgurite.models.dotted_path_networks import is_dotted
from fulgurite.models.networks import build, check_takes, class_names, classes_and_channels
from fulgurite.models.published_format import published_format
from fulgurite.probes.counted import counted
from fulgurite.probes.objectives import Objective, channel, unit
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.record import layer_of, layers_of, nearest
from fulgurite.probes.representation.stages import stages
from fulgurite.probes.tasks import answer_by, two_sided

AT_ONCE, READ = 8, (*ENDINGS, ".npy")  # images, and their suffixes
PIXELS = 178_956_970  # as many as Pillow considers safe in a file
JPEG = 65_500  # its longest side


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The images, and those in the folders, each once.

    Raises:
        ValueError: there are none.
    """
    found: list[Path] = []
    for path in paths:
        inside = [*map(Path, images_by_real_path(path, endings=READ).values())] if path.is_dir() else [path]
        if not inside or not inside[0].exists():
            lone = "no image" if path.suffix else "no image or folder"
            what = "no images in" if path.is_dir() else lone
            raise ValueError(f"{what} {printable(path)}")
        found += inside
    return list(dict.fromkeys(found))


def check_fits(args: argparse.Namespace, images: int, size: int, *, rows: int, columns: int) -> None:
    """Check that the images and the picture can be held in memory, before anything is computed.

    Args:
        args: the tiles' `side`, and where the picture goes.
        images: how many.
        size: their side.
        rows: of tiles in the picture.
        columns: of tiles.

    Raises:
        ValueError: one of them has more than 179 million pixels, or the picture is too long for a JPEG.
    """
    if images * size**2 > PIXELS:
        raise ValueError(
            f"{images} images of {size} x {size} pixels are too many at once; "
            f"wanted at most {PIXELS} pixels: fewer images, or a smaller --size"
        )
    high, wide = rows * args.side, columns * args.side
    if high * wide > PIXELS:
        raise ValueError(
            f"{rows} x {columns} tiles of {args.side} x {args.side} pixels are too large a picture; "
            f"wanted at most {PIXELS} pixels: fewer images, or a smaller --side"
        )
    # names and captions take some more
    if args.out.suffix.lower() != ".png" and 1.2 * max(high, wide) > JPEG:
        raise ValueError(f"--out {args.out}: {high} x {wide} pixels are too long for a JPEG; wanted .png")


def cut_of(args: argparse.Namespace, size: int) -> Callable[[Any], Tensor]:
    """How images are cropped: as the published weights, or the run, were evaluated."""
    return vars(args).get("framing", partial(from_the_middle, margin=args.margin))(size)


def images_of(
    files: Sequence[Path], args: argparse.Namespace, size: int, channels: int
) -> tuple[list[str], Float[Tensor, "n c h w"]]:
    """The images that can be read, and their labels; see `readable`."""
    read = readable(files, args, size, channels)
    return names_of(list(read)), torch.stack(list(read.values()))


def readable(
    files: Sequence[Path], args: argparse.Namespace, size: int, channels: int
) -> dict[Path, Float[Tensor, "c h w"]]:
    """The images that can be read.

    A file that was named must be read; one in a folder is left out with a note, see `leave_out`.
    """
    read: dict[Path, Float[Tensor, "c h w"]] = {}
    for file in files:
        try:
            read[file] = cut_of(args, size)(read_one(file, channels, args))
        except ValueError as error:
            leave_out(args, file, error)
    if not read:
        raise ValueError("none of the images can be read")
    return read


def leave_out(args: argparse.Namespace, file: Path, error: ValueError) -> None:
    """Leave out an image, with a note, and record it in `args.left_out`.

    Raises:
        ValueError: it is one of `args.images`, which were named.
    """
    if file in args.images:
        raise error
    args.left_out.append(file)
    print(f"note: left out: {error}", file=sys.stderr)


def batches_of(
    files: Sequence[Path],
    args: argparse.Namespace,
    size: int,
    channels: int,
    *,
    read: list[Path] | None = None,
) -> Iterator[Float[Tensor, "n c h w"]]:
    """The images, a few at a time.

    A file that was named must be read, see `leave_out`. Those that could be read are added to `read`.
    """
    cut, waiting = cut_of(args, size), list[Tensor]()
    for file in progress_bar(files, "reading", unit="image"):
        try:
            waiting.append(cut(read_one(file, channels, args)))
        except ValueError as error:
            leave_out(args, file, error)
        else:
            if read is not None:
                read.append(file)
        if len(waiting) == AT_ONCE:
            yield torch.stack(waiting)
            waiting.clear()
    if waiting:
        yield torch.stack(waiting)


def layers_in(
    args: argparse.Namespace, network: nn.Module, shape: tuple[int, int, int], *, also: Sequence[str] = ()
) -> list[str]:
    """The given layers, each once, the output as "logits"; the stages and `also` by default.

    Raises:
        ValueError: no such layer.
    """
    if args.layers is None:
        return [*stages(network, torch.zeros(1, *shape, device=args.device)), *also]
    words = [word.strip() for word in args.layers.split(",")]
    known = layers_of(network)
    found = ["" if word == "logits" and word not in known else word for word in words]
    for name in found:
        if name not in also:
            layer_of(network, name)
    return list(dict.fromkeys(found))


def in_parts(images: Float[Tensor, "n c h w"], device: str) -> Iterator[tuple[int, Float[Tensor, "m c h w"]]]:
    """A few images at a time, on the device, and the place of the first of them."""
    few = len(images) <= AT_ONCE
    for start in progress_bar(range(0, len(images), AT_ONCE), None if few else "images", unit="batch"):
        yield start, images[start : start + AT_ONCE].to(device)


def network_of(args: argparse.Namespace) -> tuple[nn.Module, Sequence[str], int, int]:
    """The network with its weights, the names of its classes, and the side and channels of its images.

    It is one by name, or the best of a run. How they are cropped is kept in `args.margin`, for `cut_of`.
    """
    if is_run(args.network):
        return network_of_run(args)
    if args.weights and is_run(run := str(Path(args.weights).parent.parent)):
        print(
            f"note: --network {run} takes size, classes and normalisation from the run, too", file=sys.stderr
        )
    known = published_format(args.network)
    args.margin = known.margin
    mean, std = (vars(args).get(name) for name in ("mean", "std"))
    classes, channels = known.classes, known.channels
    if args.weights:
        classes, channels = classes_and_channels(args.network, args.weights, typed=True)
    network = build(
        args.network,
        classes=classes,
        channels=channels,
        pretrained=args.weights is None,
        weights=args.weights,
        mean=mean,
        std=std,
        typed=True,
    )
    if classes == 1:  # one logit for two classes
        answer_by(network, two_sided)
        classes = 2
    names = lines_of(args.classes) if args.classes else known.names
    if names is None or (args.classes is None and len(names) != classes):
        names = class_names(classes)
    if len(names) != classes:
        raise ValueError(
            f"--classes {args.classes}: {counted(len(names), 'name')} for the {counted(classes, 'class')} of "
            f"{args.network}"
        )
    size = args.size or (_own_size(args, channels) if is_dotted(args.network) else known.size)
    if is_dotted(args.network):
        scaled = "" if mean else " as they are"
        takes = f"{channels} x {size} x {size} (--size), values in [0, 1]{scaled} (--mean, --std)"
        print(f"{args.network}: {counted(classes, 'class')}, images of {takes}", file=sys.stderr)
    check_takes(network, channels, size)
    return on_device(network, args.device), names, size, channels


def _own_size(args: argparse.Namespace, channels: int) -> int:
    """The short side of the first image, at most 512, for a network of which no size is known."""
    for file in files_of(vars(args).get("images") or ()):
        try:
            image = read_one(file, channels)
            return min(*(image.shape[1:] if isinstance(image, Tensor) else image.size), 512)
        except ValueError:
            continue
    return 32


def true_class(file: Path, names: Sequence[str]) -> int | None:
    """The class of the file's folder, by its name or number; None if it is not a class."""
    known = {name.lower(): number for number, name in enumerate(names)}
    return known.get(file.resolve().parent.name.lower())


def class_of(word: str, names: Sequence[str], *, option: str = "target") -> int:
    """A class by its name or number.

    Raises:
        ValueError: there is none, or several have this name.
    """
    if word.isdecimal() and int(word) >= len(names):
        raise ValueError(f"no class {word}; wanted a name, or a number from 0 to {len(names) - 1}")
    matches = [number for number, name in enumerate(names) if name.lower() == word.lower()]
    if len(matches) > 1:
        raise ValueError(f"--{option} {word!r} is the name of classes {matches}; give the number")
    if not matches and word.isdecimal():
        return int(word)
    if not matches:
        raise ValueError(f"no class {word!r} among {len(names)}; {nearest(word, names)}, or a number")
    return matches[0]


def classes_of(words: Sequence[str], names: Sequence[str], *, option: str = "target") -> list[int]:
    """Classes by names or numbers, each once; a word may be several with commas, if it is not a name itself.

    Raises:
        ValueError: as for `class_of`.
    """
    known = {name.lower() for name in names}
    split = [[word] if word.lower() in known else word.split(",") for word in words]
    parts = [part.strip() for own in split for part in own]
    return list(dict.fromkeys(class_of(part, names, option=option) for part in parts))


def feature_of(option: str, words: str, network: nn.Module) -> Objective:
    """The channel LAYER:INDEX, or the unit LAYER:INDEX[:ROW:COLUMN].

    Raises:
        ValueError: it is neither, or there is no such layer.
    """
    layer, *numbers = words.split(":")
    layer_of(network, layer)
    most = 3 if option == "unit" else 1
    if not (1 <= len(numbers) <= most and len(numbers) != 2 and all(n.isdecimal() for n in numbers)):
        wanted = "LAYER:INDEX" + "[:ROW:COLUMN]" * (most > 1)
        raise ValueError(f"--{option} {words}; wanted {wanted}, such as layer3:17")
    index, *places = map(int, numbers)
    return (
        unit(layer, index, **dict(zip(("row", "column"), places, strict=False)))
        if most > 1
        else channel(layer, index)
    )
