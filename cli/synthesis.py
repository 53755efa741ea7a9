"""Command: images made for a network: features, inversions, caricatures, accentuated photographs."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli import accentuation, several_networks
from fulgurite.cli.held_interruptions import INTERRUPTED
from fulgurite.cli.image_options import Listed, about_of, check_least, check_sides, like, parser_of, value
from fulgurite.cli.inputs import (
    check_fits,
    feature_of,
    files_of,
    layers_in,
    network_of,
)
from fulgurite.cli.run_images import images_or_own, plain_background_of
from fulgurite.probes.attribution.methods import knobs_of
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.counted import counted
from fulgurite.probes.feature_objectives import exaggeration
from fulgurite.probes.objectives import Objective, channel
from fulgurite.probes.render import RGB, captioned, noted, picture, sheet
from fulgurite.probes.synthesis.accentuation import accentuate
from fulgurite.probes.synthesis.caricature import caricature
from fulgurite.probes.synthesis.features import feature_images, strongest, values_of
from fulgurite.probes.synthesis.inversion import LOG_PROBABILITIES, Inversion, invert, table
from fulgurite.probes.synthesis.render_inversion import curves, strips
from fulgurite.probes.synthesis.transforms import TRANSFORMS
from fulgurite.probes.synthesis.watch import Watch

PROBES = {
    "features": "Images that maximise channels of each layer, the strongest on your images: a row per layer.",
    "invert": "Reconstructions of an image from each layer's output, their errors and PSNR.",
    "caricature": "Caricatures: images with the features of each layer exaggerated.",
    "accentuate": "Images changed so that a class or feature rises, while an early layer's features stay.",
}
PLAIN = {
    "features": """\n
The background is mid-grey, or the images' own where a quarter of all pixels have one colour, as in digits."""
}
ABOUT = "\n\nCtrl-C ends it with what it has reached." + several_networks.ABOUT
FUNCTIONS: dict[str, Callable] = {
    "features": feature_images,
    "invert": invert,
    "caricature": caricature,
    "accentuate": accentuate,
}
OWN = dict.fromkeys(PROBES, ("weights", "layers")) | {"accentuate": ("weights", "score_layer", "near")}
"""Options that each of several networks has separately."""
_INSIDE = ("seeds", "transform", "start", "distance", "watch", "near", "background")
_MORE = {"features": {"most": 4, "seed": 0}, "invert": {"repeats": 1, "seed": 0}, "caricature": {"seed": 0}}


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of a synthesis; its own knobs are in `knobs`.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    names = " and ".join(f"--{name}" for name in OWN[probe])
    parser = parser_of(
        probe,
        f"{PROBES[probe]}\n\n{about_of(FUNCTIONS[probe])}{PLAIN.get(probe, '')}{ABOUT.format(names)}",
        side=128,
        needs_images=probe != "features",
        several=True,
    )
    if probe != "accentuate":
        more = f"; also {LOG_PROBABILITIES}, and '' for the logits" if probe == "invert" else ""
        parser.add_argument(
            "--layers",
            action="append",
            help=f"paths with commas, once for each network; its stages without it{more}",
        )
    if probe == "accentuate":
        parser.add_argument("--target", help="a class, by name or number; the predicted one without it")
        where = "where scores are read, if not at the output"
        parser.add_argument("--score_layer", action=Listed, help=where)
        near = "the layer whose features stay similar; an early stage without it"
        parser.add_argument("--near", action=Listed, help=near)
    if probe in ("features", "accentuate"):
        parser.add_argument("--channel", action=Listed, metavar="LAYER:INDEX", help="this channel instead")
        parser.add_argument("--unit", action=Listed, metavar="LAYER:INDEX[:ROW:COLUMN]", help="or one unit")
    if probe == "caricature":
        parser.add_argument("--start", choices=("image", "noise"), default="image", help="where to start")
    if probe != "invert":
        parser.add_argument(
            "--transform", choices=TRANSFORMS, default="affine", help="of the image before each step"
        )
    knobs = defaults_of(probe)
    for name, default in knobs.items():
        parser.add_argument(f"--{name}", default=default, type=value, help="default %(default)s")
    args = parser.parse_args(list(words))
    check_sides(args)
    several_networks.check_counts(args, OWN[probe])
    kinds = knobs_of(FUNCTIONS[probe])
    args.knobs = {
        name: like(default, getattr(args, name), name, kinds[name].annotation if name in kinds else None)
        for name, default in knobs.items()
    }
    check_least(args.knobs, ("most", "repeats", "steps"))
    check_least(args.knobs, ("strength",), 0)
    return args


def defaults_of(probe: str) -> dict[str, Any]:
    """The options of a probe, and their defaults."""
    own = {name: knob.default for name, knob in knobs_of(FUNCTIONS[probe]).items() if name not in _INSIDE}
    return own | _MORE.get(probe, {})


def answer(args: argparse.Namespace) -> None:
    """Write the picture."""
    several_networks.answer(args, OWN[args.probe], _drawn)


def _drawn(args: argparse.Namespace) -> tuple[RGB, str]:
    files = files_of(args.images)
    network, names, size, channels = network_of(args)
    check_fits(args, len(files), size, rows=max(1, len(files)), columns=2)
    labels, images = images_or_own(args, files, size, channels)
    makers = {
        "features": _features,
        "invert": _invert,
        "caricature": _caricature,
        "accentuate": accentuation.drawn,
    }
    return makers[args.probe](args, network, names, labels, images)


def _features(
    args: argparse.Namespace, network: nn.Module, _: object, __: object, images: Float[Tensor, "n c h w"]
) -> tuple[RGB, str]:
    shape, rows = shape_of(images), dict[str, list[RGB]]()
    transform = TRANSFORMS[args.transform]()
    knobs = {**args.knobs, "transform": transform, "background": plain_background_of(images)}
    most, seed = knobs.pop("most"), knobs.pop("seed")
    asked = {
        f"{option} {words}": [("", feature_of(option, words, network))]
        for option in ("channel", "unit")
        for words in getattr(args, option) or ()
    }
    if not asked:
        if not len(images):
            raise ValueError("no images whose strongest channels to show; wanted some, or --channel, --unit")
        for layer in layers_in(args, network, shape_of(images)):
            numbers = strongest(network, images, layer, most)
            asked[layer or "logits"] = [(f"{number}", channel(layer, number)) for number in numbers.tolist()]
    columns = max(len(row) for row in asked.values())
    check_fits(args, len(asked) * columns, shape[1], rows=len(asked), columns=columns)
    for name, row, watch in _until_interrupted(asked):
        made = feature_images(
            network,
            _one_each([one for _, one in row]),
            shape,
            seeds=range(seed, seed + len(row)),
            watch=watch,
            **knobs,
        )
        rows[name] = []
        for image, (number, objective) in zip(made, row, strict=True):
            reached = float(values_of(network, objective, image[None])[0])
            best = float(values_of(network, objective, images).max()) if len(images) else 0.0
            over = f"{reached / best:.2g} x" if best > 0 else f"{reached:.3g}"
            rows[name].append(
                captioned(sized(picture(image), args.side), f"{number}: {over}".removeprefix(": "))
            )
    legend = "below each: channel, and its activation over the most that images reach"
    paper = sheet(rows, columns=[""] * columns)
    return noted(paper, legend) if len(images) else paper, counted(len(rows), "row")


def _one_each(objectives: Sequence[Objective]) -> Objective:
    """The first objective of the first image, the second of the second, and so on."""

    def each(rows: Tensor, count: int) -> Objective:
        if count != len(objectives):
            raise ValueError(
                f"{len(objectives)} objectives for {counted(count, 'image')}; wanted one for each"
            )
        return _one_each([objectives[row] for row in rows.tolist()])

    def value_of(seen: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([one.value(seen)[place] for place, one in enumerate(objectives)])

    return Objective(frozenset[str]().union(*(one.layers for one in objectives)), value_of, each)


def _invert(
    args: argparse.Namespace,
    network: nn.Module,
    _: object,
    labels: Sequence[str],
    images: Float[Tensor, "n c h w"],
) -> tuple[RGB, str]:
    knobs, found = dict(args.knobs), dict[str, Inversion]()
    repeats, seed = knobs.pop("repeats"), knobs.pop("seed")
    layers = layers_in(args, network, shape_of(images), also=("", LOG_PROBABILITIES))
    count = len(images) * repeats
    check_fits(args, count, images.shape[2], rows=count, columns=1 + len(layers))
    for layer, _name, watch in _until_interrupted(dict.fromkeys(layers), best=True):
        found[layer] = invert(network, images, layer, seeds=range(seed, seed + repeats), watch=watch, **knobs)
    lines = table(found)
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    columns = ["image", *(layer or "logits" for layer in found)]
    rows = strips(labels, images, found, side=args.side, seed=seed)
    paper = noted(sheet(rows, columns=columns), "below each: relative error at the layer, and PSNR")
    return curves(found, below=paper), counted(len(rows), "row")


def _caricature(
    args: argparse.Namespace,
    network: nn.Module,
    _: object,
    labels: Sequence[str],
    images: Float[Tensor, "n c h w"],
) -> tuple[RGB, str]:
    knobs = {**args.knobs, "transform": TRANSFORMS[args.transform]()}
    seed = knobs.pop("seed")
    seeds = range(seed, seed + len(images)) if args.start == "noise" else None
    layers, done = layers_in(args, network, shape_of(images)), list[str]()
    check_fits(args, len(images), images.shape[2], rows=len(images), columns=1 + len(layers))
    rows = {label: [sized(picture(image), args.side)] for label, image in zip(labels, images, strict=True)}
    for layer, _name, watch in _until_interrupted(dict.fromkeys(layers)):
        made = caricature(network, images, layer, seeds=seeds, watch=watch, **knobs)
        gains = values_of(network, exaggeration(layer), made, reference=images).tolist()
        done.append(layer or "logits")
        for label, image, gain in zip(labels, made, gains, strict=True):
            rows[label].append(captioned(sized(picture(image), args.side), f"{gain:.3g} x"))
    legend = "below each: inner product of its features with the image's, over that of the image with itself"
    return noted(sheet(rows, columns=["image", *done]), legend), counted(len(rows), "row")


def _until_interrupted(tasks: Mapping[str, Any], *, best: bool = False) -> Iterator[tuple[str, Any, Watch]]:
    """Each task with a progress bar of its own, until Ctrl-C ends one."""
    for name, task in tasks.items():
        watch = Watch(name or "logits", best=best, interruptible=True)
        yield name, task, watch
        if watch.interrupted:
            print(INTERRUPTED, file=sys.stderr)
            return


def shape_of(images: Float[Tensor, "n c h w"]) -> tuple[int, int, int]:
    """Channels, height and width."""
    return images.shape[1], images.shape[2], images.shape[3]
