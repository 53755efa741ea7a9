"""Commands on codes of image files: nearest neighbours next to those by pixels, maps, strongest images."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.cli.image_file import read_one
from fulgurite.cli.image_names import names_of
from fulgurite.cli.image_options import about_of, check_least, check_sides, like, parser_of, value
from fulgurite.cli.inputs import batches_of, check_fits, cut_of, files_of, network_of
from fulgurite.cli.outputs import title_of, write_picture
from fulgurite.probes.activations.top_responses import evenly
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.counted import counted
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import cut_start, noted, picture
from fulgurite.probes.representation.approximate_neighbours import approximate_neighbours, check_faiss
from fulgurite.probes.representation.codes import codes
from fulgurite.probes.representation.directions import strongest_along
from fulgurite.probes.representation.map_quality import MOST, map_quality, seams, snapped
from fulgurite.probes.representation.neighbours import (
    Neighbours,
    knn_accuracy,
    nearest_neighbours,
    pixel_codes,
    recall_at_k,
)
from fulgurite.probes.representation.projections import MAPS, check_map
from fulgurite.probes.representation.render_directions import (
    purity_text,
    render_directions,
    shown_along,
)
from fulgurite.probes.representation.render_image_grid import render_grid, render_scattered
from fulgurite.probes.representation.render_neighbours import DISTANCES, render_neighbours, shown
from fulgurite.probes.stages import classifier_layer
from fulgurite.probes.trace import trace

PROBES = {
    "neighbours": "Nearest neighbours of your images, by the network's codes and by pixels; kNN accuracy.",
    "image_grid": "Your images where t-SNE puts their codes, on a grid with seams, or at their places.",
    "directions": "Your images that units of the code respond to most, next to those of random directions.",
}
COUNTS = {"neighbours": {"k": 5, "queries": 10}, "image_grid": {}, "directions": {"k": 8, "most": 8}}
LAYOUTS = ("grid", "map")
ABOUT = """

Each image is compared with all others. Where the images lie in a folder for each class, the recall and the
accuracy of k nearest neighbours are printed, and neighbours of the query's class have a green edge."""
PURE = """

Where the images lie in a folder for each class, the class purity is printed: the share of a unit's strongest
images that are of its most frequent class, over all units, over as many random directions, and of images
drawn at random, each with its standard error and the number of units."""


class Read(NamedTuple):
    """Codes and labels of the images that could be read; the images are not kept."""

    files: list[Path]
    codes: Float[Tensor, "n d"]
    pixels: Float[Tensor, "n e"]
    classes: Int[Tensor, "n"] | None
    """The number of its folder for each image, where there are several."""


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of codes.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    function, more, side = {
        "neighbours": (nearest_neighbours, ABOUT, 96),
        "image_grid": (seams, "", 48),
        "directions": (strongest_along, PURE, 64),
    }[probe]
    parser = parser_of(probe, f"{PROBES[probe]}\n\n{about_of(function)}{more}", side=side)
    parser.add_argument("--layer", help="the classifier, whose input is the code; the last one without it")
    if probe == "neighbours":
        parser.add_argument("--metric", default="cosine", help="cosine or l2; default %(default)s")
        walked = "search a graph by faiss, for some hundred thousand images or more, and print its recall"
        parser.add_argument("--approximate", action="store_true", help=walked)
    if probe == "directions":
        parser.add_argument("--seed", type=value, default=0, help="of the directions; default %(default)s")
    if probe == "image_grid":
        parser.add_argument(
            "--layout",
            default="grid",
            help="grid, or map: thumbnails at their places; default %(default)s",
        )
        by = "tsne, or umap with the package umap-learn; default %(default)s"
        parser.add_argument("--method", default="tsne", help=by)
    meaning = {
        "k": "neighbours" if probe == "neighbours" else "images of each unit",
        "queries": "images whose neighbours are shown, spread evenly",
        "most": "units that are shown, spread evenly, and as many random directions",
    }
    for name, default in COUNTS[probe].items():
        parser.add_argument(
            f"--{name}", type=value, default=default, help=f"{meaning[name]}; default %(default)s"
        )
    args = parser.parse_args(list(words))
    check_sides(args)
    for name, default in COUNTS[probe].items():
        like(default, getattr(args, name), name)
    check_least(vars(args), list(COUNTS[probe]))
    if probe == "directions":
        like(0, args.seed, "seed")
    if probe == "image_grid" and args.layout not in LAYOUTS:
        raise ValueError(f"--layout {args.layout}; wanted {' or '.join(LAYOUTS)}")
    if probe == "image_grid":
        try:
            check_map(args.method)
        except ValueError as error:
            raise ValueError(f"--method {args.method}: {error}") from None
    if probe == "neighbours" and args.metric not in ("cosine", "l2"):
        raise ValueError(f"--metric {args.metric}; wanted cosine or l2")
    if probe == "neighbours" and args.approximate:
        check_faiss()
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture, and print the numbers."""
    {"neighbours": _neighbours, "image_grid": _image_grid, "directions": _directions}[args.probe](args)


def _image_grid(args: argparse.Namespace) -> None:
    files = files_of(args.images)
    _check_grid(len(files))
    network, _, size, channels = network_of(args)
    side = int(len(files) ** 0.5) + 1
    check_fits(args, 1, size, rows=side, columns=side)
    read = read_codes(args, network, files, size, channels)
    _check_grid(len(read.files))
    own = read.codes.cpu()
    points = MAPS[args.method](own)
    tiles = [sized(picture(image_of(file, args, size, channels)), args.side) for file in read.files]
    if args.layout == "grid":
        paper = render_grid(tiles, snapped(points), own)
    else:
        paper = render_scattered(tiles, points, side=args.side * side)
    quality = map_quality(own, points)
    print(quality.caption)
    write_picture(noted(paper, quality.caption), args.out, counted(len(tiles), "image"), title=title_of(args))


def _directions(args: argparse.Namespace) -> None:
    files = files_of(args.images)
    _check_strongest(len(files), args.k)
    network, _, size, channels = network_of(args)
    check_fits(args, 2 * args.k * args.most, size, rows=args.most, columns=2 * args.k)
    read = read_codes(args, network, files, size, channels)
    _check_strongest(len(read.files), args.k)
    own = read.codes.cpu()
    found = strongest_along(own, k=args.k, seed=args.seed)
    purities = None
    if read.classes is not None:
        purities = found.purities(read.classes, seed=args.seed)
        for name, purity in purities.items():
            print(f"class purity of the {args.k} strongest images, {name}: {purity_text(purity)}")
    units = evenly(range(own.shape[1]), args.most)
    images = {place: image_of(read.files[place], args, size, channels) for place in shown_along(found, units)}
    names = [file.parent.name for file in read.files]
    if read.classes is None:
        names = _captions(read.files, args.side)
    paper = render_directions(found, images, units, names, purities=purities, side=args.side)
    summary = f"{len(units)} of {counted(own.shape[1], 'unit')}, {counted(len(read.files), 'image')}"
    write_picture(paper, args.out, summary, title=title_of(args))


def _neighbours(args: argparse.Namespace) -> None:
    files = files_of(args.images)
    _check_enough(len(files), args.k)
    network, _, size, channels = network_of(args)
    rows = min(args.queries, len(files))
    check_fits(args, rows * (2 * args.k + 1), size, rows=rows, columns=2 * args.k + 1)
    read = read_codes(args, network, files, size, channels)
    _check_enough(len(read.files), args.k)
    found = {
        name: _searched(own, name, args) for name, own in (("codes", read.codes), ("pixels", read.pixels))
    }
    if read.classes is not None:
        for name, own in found.items():
            recall = recall_at_k(own, read.classes)
            print(
                f"{name}: accuracy of {args.k} nearest neighbours {knn_accuracy(own, read.classes):.1%}, "
                f"recall at 1 {recall[0]:.1%}, at {args.k} {recall[-1]:.1%}"
            )
    chosen = [place * len(read.files) // rows for place in range(min(rows, len(read.files)))]
    few = [
        (f"{name}, {DISTANCES[args.metric]}", Neighbours(own.places[chosen], own.distances[chosen]))
        for name, own in found.items()
    ]
    images = {place: image_of(read.files[place], args, size, channels) for place in shown(chosen, few)}
    names = _captions(read.files, args.side)
    paper = render_neighbours(images, chosen, few, names, classes=read.classes, side=args.side)
    summary = f"{counted(args.k, 'neighbour')} of {len(chosen)} among {counted(len(read.files), 'image')}"
    write_picture(paper, args.out, summary, title=title_of(args))


def _searched(codes: Float[Tensor, "n d"], name: str, args: argparse.Namespace) -> Neighbours:
    if not args.approximate:
        return nearest_neighbours(codes, k=args.k, metric=args.metric)
    found, recall, checked = approximate_neighbours(codes, k=args.k, metric=args.metric)
    print(f"{name}: {recall:.1%} of the true neighbours found, measured on {counted(checked, 'image')}")
    return found


def read_codes(
    args: argparse.Namespace, network: nn.Module, files: Sequence[Path], size: int, channels: int
) -> Read:
    """The codes and the pixels of all images that can be read.

    Raises:
        ValueError: no such layer, or no image.
    """
    layer = args.layer
    if layer is None:
        layer = classifier_layer(trace(network, torch.zeros(1, channels, size, size, device=args.device)))
    layer_of(network, layer)
    read, found, pixels = list[Path](), list[Tensor](), list[Tensor]()
    for images in batches_of(files, args, size, channels, read=read):
        found.append(codes(network, images.to(args.device), layer))
        pixels.append(pixel_codes(images).to(args.device))
    if not read:
        raise ValueError("none of the images can be read")
    folders = sorted({file.parent.name for file in read})
    classes = torch.tensor([folders.index(file.parent.name) for file in read]) if len(folders) > 1 else None
    return Read(read, torch.cat(found), torch.cat(pixels), classes)


def image_of(file: Path, args: argparse.Namespace, size: int, channels: int) -> Float[Tensor, "c h w"]:
    """The image, as the network sees it."""
    return cut_of(args, size)(read_one(file, channels, args))


def _captions(files: Sequence[Path], side: int) -> list[str]:
    return [cut_start(name, side - 3) for name in names_of(files)]


def _check_grid(images: int) -> None:
    if not 4 <= images <= MOST:
        raise ValueError(f"{counted(images, 'image')} on a grid; wanted 4 to {MOST}")


def _check_enough(images: int, k: int) -> None:
    if images <= k:
        raise ValueError(f"{counted(images, 'image')} for {k} neighbours of each; wanted at least {k + 1}")


def _check_strongest(images: int, k: int) -> None:
    if images < k:
        raise ValueError(
            f"{counted(images, 'image')} for the {k} strongest of each unit; wanted at least "
            f"{k}, or a smaller --k"
        )
