"""Command: the layer table of a network, with receptive fields; and its stages at the start of a run."""

import argparse
from collections.abc import Sequence

import torch
from torch import nn

from fulgurite.cli.image_options import SIDE, Parser, add_network
from fulgurite.cli.network_of_run import is_run, run_alone
from fulgurite.models.dotted_path_networks import is_dotted
from fulgurite.models.networks import build, classes_and_channels
from fulgurite.models.published_format import published_format
from fulgurite.probes.activations.layer_table import layer_table
from fulgurite.probes.activations.receptive_field import receptive_fields
from fulgurite.recipes.recipe import Recipe

ABOUT = """Output shape, parameters, activations, memory and multiply-adds of each layer, for one image.

No weights are needed, and none are downloaded. Receptive fields are those of units of
convolutions, pooling and stages, in pixels; they take as long as some passes of large images."""


def run(verb: str, words: Sequence[str]) -> int:
    """Print the table.

    Raises:
        ValueError: an unknown option or network, weights of another one, or a size that it cannot take.
    """
    parser = Parser(verb, ABOUT)
    add_network(
        parser,
        weights="a file of its weights, whose classes and channels count; without it, as published",
    )
    parser.add_argument(
        "--size", type=int, help="side of the image; what the network was made for without it"
    )
    parser.add_argument("--stages", action="store_true", help="a row for each stage, not for each layer")
    parser.add_argument("--receptive_fields", action="store_true", help="also size and stride of these")
    args = parser.parse_args(list(words))
    if args.size is not None and not 1 <= args.size <= SIDE:
        raise ValueError(f"--size {args.size}; wanted a number of pixels, from 1 to {SIDE}")
    network, size, channels = _network(args)
    table = layer_table(network, torch.empty(1, channels, size, size, device="meta"))
    table = table.by_stage() if args.stages else table
    fields = None
    if args.receptive_fields:
        maps = [row for row in table.rows if row.output is not None and len(row.output) == 3]
        # normalisation and activation have the receptive field of the layer before them
        layers = [
            row.path for row in maps if row.path in table.stages or (row.activations and not args.stages)
        ]
        fields = receptive_fields(network, layers, channels=channels)
    print(table.text(fields))
    return 0


def _network(args: argparse.Namespace) -> tuple[nn.Module, int, int]:
    """The network, and the side and channels of the images that it is made for, or --size."""
    if is_run(args.network):
        network, _, size, channels = run_alone(args.network, weights=args.weights, size=args.size)
        return network, size, channels
    known = published_format(args.network)
    classes, channels = known.classes, known.channels
    if args.weights or is_dotted(args.network):
        classes, channels = classes_and_channels(args.network, args.weights, typed=True)
    network = build(args.network, classes=classes, channels=channels, weights=args.weights, typed=True)
    return network, args.size or known.size, channels


def summary(recipe: Recipe) -> str:
    """The stages of the network that a recipe trains, and its totals, in a few lines.

    Where the size of its images is not known, or it cannot be run on shapes alone, its parameters.
    """
    network, takes = recipe.network, recipe.takes()
    parameters = sum(own.numel() for own in network.parameters())
    name = type(network).__name__
    size, channels = takes.get("size"), takes.get("channels")
    if not (isinstance(size, int) and isinstance(channels, int)):
        return f"{name}: {parameters:,} parameters"
    try:
        table = layer_table(network, torch.empty(1, channels, size, size, device="meta"))
    except ValueError:
        return f"{name}: {parameters:,} parameters"
    return "\n".join([f"{name}, for one image:", table.by_stage().brief()])
