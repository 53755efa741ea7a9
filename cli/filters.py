"""Command: the filters of convolutions of one or several networks, side by side."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from fulgurite.cli.image_options import (
    SIDE,
    Listed,
    Parser,
    add_network,
    add_picture,
    check_least,
    like,
    value,
)
from fulgurite.cli.inputs import check_fits
from fulgurite.cli.network_of_run import is_run, run_alone
from fulgurite.cli.outputs import check_picture, title_of, write_picture
from fulgurite.cli.several_networks import check_counts, each_network
from fulgurite.models.networks import IMAGENET, build, classes_and_channels
from fulgurite.probes.counted import counted
from fulgurite.probes.filters import WHOLE, convolutions, filters_side_by_side, most_shown, weights
from fulgurite.probes.style import drawn_in

OWN = ("weights", "layer")
ABOUT = """Filters of a convolution of each network as pictures: signed, on one scale for each layer.

Filters on one or three channels are shown whole, deeper ones channel by channel: a row for each output
channel, a column for each of as many input channels. With --stimuli, each is divided by its length: of all
patches of length 1, the one to which it responds most.

--network takes several with commas, and --weights and --layer one for each, in the same order."""


def run(verb: str, words: Sequence[str]) -> int:
    """Write the picture.

    Raises:
        ValueError: an unknown option, network, file or layer, or a layer that is no 2-d convolution.
    """
    args = _parse(verb, words)
    check_picture(args)
    found = dict[str, tuple[nn.Module, str]]()
    for title, asked in each_network(args, OWN):
        network = _network(asked.network, asked.weights)
        own = convolutions(network)
        if asked.layer is None and not own:
            raise ValueError(f"{asked.network} has no 2-d convolution")
        chosen = own[0] if asked.layer is None else asked.layer
        weights(network, chosen)  # raises before the next network is fetched
        found[title] = network, chosen
    tiles = [_tiles(weights(*own), args.most) for own in found.values()]
    check_fits(args, 1, 1, rows=max(rows for rows, _ in tiles), columns=sum(columns for _, columns in tiles))
    with drawn_in(args.theme):
        pixels = filters_side_by_side(found, max_filters=args.most, side=args.side, unit_length=args.stimuli)
        write_picture(pixels, args.out, counted(len(found), "network"), title=title_of(args, "filters"))
    return 0


def _parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(verb, ABOUT)
    add_network(parser, several=True, weights="a file for each; published weights without it")
    parser.add_argument("--layer", action=Listed, help="a path for each; the first convolution without it")
    parser.add_argument("--stimuli", action="store_true", help="divided by their lengths")
    parser.add_argument("--most", type=value, help="filters of each; 64, or 16 of deeper ones, without it")
    parser.add_argument("--side", type=value, default=32, help="of a filter, in pixels; default %(default)s")
    add_picture(parser, "filters")
    args = parser.parse_args(list(words))
    for name in ("most", "side"):
        if getattr(args, name) is not None:
            like(1, getattr(args, name), name)
    check_least(vars(args), ("most", "side"))
    if args.side > SIDE:
        raise ValueError(f"--side {args.side}; wanted at most {SIDE} pixels")
    check_counts(args, OWN)
    return args


def _tiles(values: Tensor, most: int | None) -> tuple[int, int]:
    """How many rows and columns of filters there are; deeper ones have half the side."""
    count, channels = values.shape[:2]
    along = most_shown(channels, most)
    if channels in WHOLE:
        across = math.ceil(min(count, along) ** 0.5)
        return across, across
    return math.ceil(min(count, along) / 2), math.ceil(min(channels, along) / 2)


def _network(name: str, file: Path | None) -> nn.Module:
    if is_run(name):
        return run_alone(name, weights=file)[0]
    classes, channels = classes_and_channels(name, file, typed=True) if file else (IMAGENET, 3)
    return build(name, classes=classes, channels=channels, pretrained=file is None, weights=file, typed=True)
