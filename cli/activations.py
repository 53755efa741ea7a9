"""Commands: activation maps of the strongest channels, and silent units over folders of images."""

import argparse
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from fulgurite.cli.image_options import check_sides, like, parser_of, value
from fulgurite.cli.inputs import AT_ONCE, check_fits, files_of, images_of, network_of, write_picture
from fulgurite.data.crops import from_the_middle
from fulgurite.data.decoding import read_image
from fulgurite.probes.activations.activation_maps import activation_maps, render_activations
from fulgurite.probes.activations.silent_units import UnitActivity, unit_activity
from fulgurite.probes.plots import category_plot
from fulgurite.probes.record import layer_of, layers_of
from fulgurite.probes.render import grid
from fulgurite.probes.representation.stages import stages

PROBES = {
    "activations": "Activation maps of the strongest channels of each layer, for each of your images.",
    "silent_units": "Which units of each layer respond to none of your images; sparsity and saturation.",
}
_FUNCTIONS = {"activations": activation_maps, "silent_units": unit_activity}
SHOWN = 12  # silent channels that are named


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """What the words ask of activations.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    about = (inspect.getdoc(_FUNCTIONS[probe]) or "").split("\nArgs:")[0].strip()
    parser = parser_of(probe, f"{PROBES[probe]}\n\n{about}", side=96)
    parser.add_argument("--layers", help="paths with commas; the network's stages without it")
    if probe == "activations":
        parser.add_argument("--most", type=value, default=8, help="channels; default %(default)s")
    args = parser.parse_args(list(words))
    check_sides(args)
    if probe == "activations" and like(8, args.most, "most") < 1:
        raise ValueError(f"--most {args.most}; wanted at least 1")
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture, and print the numbers."""
    {"activations": _activations, "silent_units": _silent_units}[args.probe](args)


def _activations(args: argparse.Namespace) -> None:
    files = files_of(args.images)
    network, _, size, channels = network_of(args)
    layers = _layers(args, network, (channels, size, size))
    check_fits(args, len(files), size, rows=len(files) * len(layers), columns=args.most + 1)
    names, images = images_of(files, args.images, size, channels)
    found = activation_maps(network, images, layers, most=args.most)
    for layer, own in found.items():
        strongest = own.channels[:, 0].tolist()
        told = ", ".join(f"{name}: {number}" for name, number in zip(names, strongest, strict=True))
        print(f"{layer or 'logits'}: strongest channel of {told}")
    blocks = [render_activations(layer, images, own, names, side=args.side) for layer, own in found.items()]
    write_picture(grid(blocks, columns=1, gap=8), args.out, f"{len(layers)} layers, {len(names)} images")


def _silent_units(args: argparse.Namespace) -> None:
    files = files_of(args.images)
    network, _, size, channels = network_of(args)
    layers = _layers(args, network, (channels, size, size))
    found = unit_activity(network, _batches(files, args.images, size, channels), layers)
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
    up = f"silent channels, zero activations{', saturated ones' * (len(lines) > 2)}: shares, {images} images"
    plot = category_plot([layer or "logits" for layer in found], lines, ylabel=up, ymax=1.0)
    write_picture(plot, args.out, f"{len(layers)} layers, {images} images")


def _line(layer: str, own: UnitActivity) -> str:
    silent = own.silent.tolist()
    named = f" ({', '.join(map(str, silent[:SHOWN]))}{', ...' * (len(silent) > SHOWN)})" if silent else ""
    saturation = "" if own.mean_saturation is None else f", saturation {own.mean_saturation:.1%}"
    return (
        f"{layer or 'logits'}: {len(silent)} of {len(own.active)} channels silent{named}, "
        f"sparsity {own.mean_sparsity:.1%}{saturation}{', signed: silent is not dead' * own.signed}"
    )


def _layers(args: argparse.Namespace, network: nn.Module, shape: tuple[int, int, int]) -> list[str]:
    """The layers that are asked for, each once, the output as "logits"; the stages without it.

    Raises:
        ValueError: no such layer.
    """
    if args.layers is None:
        return stages(network, torch.zeros(1, *shape, device=args.device))
    words = [word.strip() for word in args.layers.split(",")]
    known = layers_of(network)
    found = ["" if word == "logits" and word not in known else word for word in words]
    for name in found:
        layer_of(network, name)
    return list(dict.fromkeys(found))


def _batches(
    files: Sequence[Path], named: Sequence[Path], size: int, channels: int
) -> Iterator[Float[Tensor, "n c h w"]]:
    """The images, a few at a time.

    A file that was named must be read; one in a folder is left out with a note.
    """
    cut, waiting = from_the_middle(size), list[Tensor]()
    for file in tqdm(files, "images", delay=3, leave=False):
        try:
            waiting.append(cut(read_image(file, channels=channels)))
        except ValueError as error:
            if file in named:
                raise
            print(f"note: left out: {error}", file=sys.stderr)
        if len(waiting) == AT_ONCE:
            yield torch.stack(waiting)
            waiting.clear()
    if waiting:
        yield torch.stack(waiting)
