"""Command: the filters of convolutions of one or several networks, side by side."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from torch import nn

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
from fulgurite.cli.outputs import check_writable, write_picture
from fulgurite.cli.several_networks import check_counts, each_network
from fulgurite.models.networks import IMAGENET, build, classes_and_channels
from fulgurite.probes.counted import counted
from fulgurite.probes.filters import convolutions, filters_side_by_side, weights
from fulgurite.probes.style import drawn_in

OWN = ("weights", "layer")
ABOUT = """Filters of a convolution of each network as pictures: signed, on one scale for each layer.

Filters on one or three channels are shown whole, deeper ones channel by channel: a row for each output
channel, a column for each input channel. With --stimuli, each is divided by its length: of all
patches of length 1, the one to which it responds most.

--network takes several with commas, and --weights and --layer one for each, in the same order."""


def run(verb: str, words: Sequence[str]) -> int:
    """Write the picture.

    Raises:
        ValueError: an unknown option, network, file or layer, or a layer that is no 2-d convolution.
    """
    args = _parse(verb, words)
    check_writable(args.out)
    across = math.ceil(args.most**0.5)
    check_fits(args, 1, 1, rows=across, columns=across * len(args.network))
    found = dict[str, tuple[nn.Module, str]]()
    for title, asked in each_network(args, OWN):
        network = _network(asked.network, asked.weights)
        own = convolutions(network)
        if asked.layer is None and not own:
            raise ValueError(f"{asked.network} has no 2-d convolution")
        chosen = own[0] if asked.layer is None else asked.layer
        weights(network, chosen)  # raises before the next network is fetched
        found[title] = network, chosen
    with drawn_in(args.theme):
        pixels = filters_side_by_side(found, max_filters=args.most, side=args.side, unit_length=args.stimuli)
        write_picture(pixels, args.out, counted(len(found), "network"))
    return 0


def _parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(verb, ABOUT)
    add_network(parser, several=True, weights="a file for each; published weights without it")
    parser.add_argument("--layer", action=Listed, help="a path for each; the first convolution without it")
    parser.add_argument("--stimuli", action="store_true", help="divided by their lengths")
    parser.add_argument("--most", type=value, default=64, help="filters of each; default %(default)s")
    parser.add_argument("--side", type=value, default=32, help="of a filter, in pixels; default %(default)s")
    add_picture(parser, "filters")
    args = parser.parse_args(list(words))
    for name in ("most", "side"):
        like(1, getattr(args, name), name)
    check_least(vars(args), ("most", "side"))
    if args.side > SIDE:
        raise ValueError(f"--side {args.side}; wanted at most {SIDE} pixels")
    check_counts(args, OWN)
    return args


def _network(name: str, file: Path | None) -> nn.Module:
    if is_run(name):
        return run_alone(name, weights=file)[0]
    classes, channels = classes_and_channels(name, file, typed=True) if file else (IMAGENET, 3)
    return build(name, classes=classes, channels=channels, pretrained=file is None, weights=file, typed=True)
