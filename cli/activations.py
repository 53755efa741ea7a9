"""Commands: activation maps of the strongest channels, and silent units over folders of images."""

import argparse
from collections.abc import Sequence

from fulgurite.cli.image_options import about_of, check_least, check_sides, like, parser_of, value
from fulgurite.cli.inputs import batches_of, check_fits, files_of, images_of, layers_in, network_of
from fulgurite.cli.outputs import title_of, write_picture
from fulgurite.probes.activations.activation_maps import activation_maps, render_activations
from fulgurite.probes.activations.silent_units import UnitActivity, unit_activity
from fulgurite.probes.counted import counted
from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import grid

PROBES = {
    "activations": "Activation maps of the strongest channels of each layer, for each of your images.",
    "silent_units": "Which units of each layer respond to none of your images; sparsity and saturation.",
}
_FUNCTIONS = {"activations": activation_maps, "silent_units": unit_activity}
SHOWN = 12  # silent channels that are named


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of activations.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    parser = parser_of(probe, f"{PROBES[probe]}\n\n{about_of(_FUNCTIONS[probe])}", side=96)
    parser.add_argument("--layers", help="paths with commas; the network's stages without it")
    if probe == "activations":
        parser.add_argument("--most", type=value, default=8, help="channels; default %(default)s")
    args = parser.parse_args(list(words))
    check_sides(args)
    if probe == "activations":
        like(8, args.most, "most")
    check_least(vars(args), ["most"])
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture, and print the numbers."""
    {"activations": _activations, "silent_units": _silent_units}[args.probe](args)


def _activations(args: argparse.Namespace) -> None:
    files = files_of(args.images)
    network, _, size, channels = network_of(args)
    layers = layers_in(args, network, (channels, size, size))
    check_fits(args, len(files), size, rows=len(files) * len(layers), columns=args.most + 1)
    names, images = images_of(files, args, size, channels)
    found = activation_maps(network, images, layers, most=args.most)
    for layer, own in found.items():
        strongest = own.channels[:, 0].tolist()
        listed = ", ".join(f"{name}: {number}" for name, number in zip(names, strongest, strict=True))
        print(f"{layer or 'logits'}: strongest channel of {listed}")
    blocks = [render_activations(layer, images, own, names, side=args.side) for layer, own in found.items()]
    summary = f"{counted(len(layers), 'layer')}, {counted(len(names), 'image')}"
    write_picture(grid(blocks, columns=1, gap=8), args.out, summary, title=title_of(args))


def _silent_units(args: argparse.Namespace) -> None:
    files = files_of(args.images)
    network, _, size, channels = network_of(args)
    layers = layers_in(args, network, (channels, size, size))
    found = unit_activity(network, batches_of(files, args, size, channels), layers)
    for layer, own in found.items():
        print(_line(layer, own))
    images = next(iter(found.values())).images
    lines = {
        "silent": [own.silent_share for own in found.values()],
        "sparsity": [own.mean_sparsity for own in found.values()],
    }
    if any(own.saturation is not None for own in found.values()):
        lines["saturation"] = [
            float("nan") if own.mean_saturation is None else own.mean_saturation for own in found.values()
        ]
    kinds = f"silent channels, zero activations{', saturated ones' * (len(lines) > 2)}"
    up = f"{kinds}: shares, {counted(images, 'image')}"
    plot = category_plot([layer or "logits" for layer in found], lines, ylabel=up, ymax=1.0, ordered=False)
    write_picture(
        plot, args.out, f"{counted(len(layers), 'layer')}, {counted(images, 'image')}", title=title_of(args)
    )


def _line(layer: str, own: UnitActivity) -> str:
    silent = own.silent.tolist()
    named = f" ({', '.join(map(str, silent[:SHOWN]))}{', ...' * (len(silent) > SHOWN)})" if silent else ""
    saturation = "" if own.mean_saturation is None else f", saturation {own.mean_saturation:.1%}"
    return (
        f"{layer or 'logits'}: {len(silent)} of {counted(len(own.active), 'channel')} silent{named}, "
        f"sparsity {own.mean_sparsity:.1%}{saturation}{', signed: silent is not dead' * own.signed}"
    )
