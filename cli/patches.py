"""Command: the strongest patches of units of layers, over folders of images."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fulgurite.cli.image_file import read_one
from fulgurite.cli.image_options import about_of, check_least, check_sides, like, parser_of, value
from fulgurite.cli.inputs import batches_of, check_fits, cut_of, files_of, layers_in, network_of
from fulgurite.cli.outputs import title_of, write_picture
from fulgurite.probes.activations.patches import (
    check_enough,
    class_purity,
    cut_patches,
    fields_of,
    strongest_patches,
)
from fulgurite.probes.activations.render_patches import render_patches
from fulgurite.probes.activations.top_responses import TopResponses, evenly, top_responses, with_maps
from fulgurite.probes.counted import counted
from fulgurite.probes.render import grid

PROBES = {
    "patches": "The patches of your images that excite units of each layer most; and random directions."
}
COUNTS = {"most": 12, "directions": 12, "patches": 8}
ABOUT = """

Where the images lie in a folder for each class, the class purity is over all channels and directions: the
share of a unit's patches that are of its most frequent class."""


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of patches.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    parser = parser_of(probe, f"{PROBES[probe]}\n\n{about_of(strongest_patches)}{ABOUT}", side=96)
    parser.add_argument("--layers", help="paths with commas; those of the network's stages without it")
    parser.add_argument("--units", help="numbers of channels with commas; --most of each layer without it")
    for name, default, help_ in (
        ("most", COUNTS["most"], "channels, spread evenly over the layer"),
        ("directions", None, "random directions; as many as --units or --most without it, at most 12"),
        ("patches", COUNTS["patches"], "of each unit, each of another image"),
    ):
        parser.add_argument(
            f"--{name}",
            type=value,
            default=default,
            help=help_ if default is None else f"{help_}; default %(default)s",
        )
    parser.add_argument("--seed", type=value, default=0, help="of the directions; default %(default)s")
    args = parser.parse_args(list(words))
    check_sides(args)
    if args.directions is None:
        units = _units(args)
        wanted = like(COUNTS["most"], args.most, "most") if units is None else len(units)
        args.directions = min(COUNTS["directions"], max(0, wanted))
    for name, default in {**COUNTS, "seed": 0}.items():
        like(default, getattr(args, name), name)
    for name, least in (("most", 1), ("directions", 0), ("patches", 1)):
        check_least(vars(args), [name], least)
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture, and print the class purity of each layer."""
    asked, files = _units(args), files_of(args.images)
    network, _, size, channels = network_of(args)
    layers = layers_in(args, network, (channels, size, size))
    if args.layers is None:
        layers = with_maps(network, torch.zeros(1, channels, size, size), layers)
    check_enough(len(files), args.patches)
    rows = len(layers) * max(args.directions, args.most if asked is None else len(asked))
    check_fits(args, 1, size, rows=rows, columns=args.patches * (1 + (args.directions > 0)))
    if asked is not None:  # raised before all images are read
        top_responses(network, torch.zeros(1, channels, size, size), layers, units=asked, k=1)
    read = list[Path]()
    found = top_responses(
        network,
        batches_of(files, args, size, channels, read=read),
        layers,
        directions=args.directions,
        k=args.patches,
        seed=args.seed,
    )
    shown = {
        layer: own.of(evenly(own.channels, args.most) if asked is None else asked)
        for layer, own in found.items()
    }
    patches = cut_patches(
        _Files(read, args, size, channels), shown, fields_of(network, found, (channels, size, size))
    )
    for layer, own in found.items():
        units = f"{counted(len(own.channels), 'channel')}, {counted(args.directions, 'direction')}"
        print(f"{layer or 'logits'}: {units}{_purity(own, read)}")
    blocks = [render_patches(own, side=args.side) for own in patches.values()]
    summary = f"{counted(len(layers), 'layer')}, {counted(len(read), 'image')}"
    write_picture(grid(blocks, columns=1, gap=8), args.out, summary, title=title_of(args))


def _units(args: argparse.Namespace) -> list[int] | None:
    words = None if args.units is None else [word.strip() for word in args.units.split(",")]
    if words is not None and not all(word.isascii() and word.isdecimal() and len(word) < 8 for word in words):
        raise ValueError(f"--units {args.units}; wanted numbers of channels, such as 3,17")
    return None if words is None else list(dict.fromkeys(map(int, words)))


def _purity(own: TopResponses, read: Sequence[Path]) -> str:
    """The class purity of channels and directions, where there is a folder for each class."""
    places = _classes(read)
    if len(places) < 2:
        return ""
    labels = torch.tensor([places[file.parent.name] for file in read])[own.top.ids.cpu()]
    parts = [values.split([len(own.channels), own.directions]) for values in (labels, own.top.values.cpu())]
    shares = [f"{class_purity(*part):.3f}" for part in zip(*parts, strict=True) if len(part[0])]
    return f"; class purity of all {' and '.join(shares)}"


def _classes(files: Sequence[Path]) -> Mapping[str, int]:
    """The names of folders, numbered: `train/ants` and `val/ants` are one class."""
    return {name: number for number, name in enumerate(sorted({file.parent.name for file in files}))}


class _Files(Dataset):
    """The images of files, with the numbers of their folders if there are several."""

    def __init__(self, files: Sequence[Path], args: argparse.Namespace, size: int, channels: int):
        self.files, self.classes = files, _classes(files)
        self.args, self.cut, self.channels = args, cut_of(args, size), channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, ...]:
        file = self.files[place]
        image = self.cut(read_one(file, self.channels, self.args))
        return image, *((torch.tensor(self.classes[file.parent.name]),) if len(self.classes) > 1 else ())
