"""Command: attribution maps of image files."""

import argparse
import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli.image_names import names_of
from fulgurite.cli.image_options import Listed, check_sides, like, parser_of, value
from fulgurite.cli.inputs import (
    check_fits,
    classes_of,
    feature_of,
    files_of,
    in_parts,
    network_of,
    readable,
    true_class,
)
from fulgurite.cli.outputs import title_of, write_picture
from fulgurite.probes.attribution.grabcut import cut_out, grabcut
from fulgurite.probes.attribution.map_sheets import MapRow, map_sheet
from fulgurite.probes.attribution.methods import METHODS, attribute, knobs_of, method_of
from fulgurite.probes.attribution.render_maps import sized, zero_maps, zeros_in_words
from fulgurite.probes.objectives import Objective, Objectives, class_score, log_probability, probability
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import captioned, picture

USUAL = [
    *("input_x_gradient", "smoothgrad", "integrated_gradients", "deconvnet", "guided_backprop"),
    *("grad_cam", "guided_grad_cam", "layer_cam", "occlusion", "lime"),
]
SHEETS = {
    "compare": "Several methods side by side: a sheet of images x methods.",
    "segment": "The object cut out by GrabCut, seeded from the saliency: mask and cut-out.",
}
PROBES = SHEETS | {name: inspect.getdoc(method) or "" for name, method in METHODS.items()}
ABOUT = "\n\nAll targets are explained from the same passes; the predicted class, if none is named."
SCORES = {"score": class_score, "probability": probability, "log_probability": log_probability}
Question = tuple[int | None, Objective]  # the explained class, if it is one


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of an attribution method or sheet; its own knobs are in `knobs`.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    knobs = _knobs(probe)
    parser = parser_of(probe, PROBES[probe] + ABOUT, side=224 if probe in METHODS else 144)
    parser.add_argument("--target", action="append", help="a class by name or number; several with commas")
    parser.add_argument("--of", choices=SCORES, default="score", help="the class output to explain")
    parser.add_argument("--score_layer", default="", help="where scores are read, if not at the output")
    parser.add_argument(
        "--channel", action=Listed, metavar="LAYER:INDEX", help="explain a channel instead of a class"
    )
    parser.add_argument(
        "--unit", action=Listed, metavar="LAYER:INDEX[:ROW:COLUMN]", help="or about one unit of it"
    )
    looks = 'of maps: "signed", "over" the image, "heat" (sizes), "colour" (channels), or what suits each'
    parser.add_argument(
        "--look", choices=("auto", "signed", "colour", "heat", "over"), default="auto", help=looks
    )
    scales = "of colours: one for each column, or for each tile, which shows weak maps too"
    parser.add_argument("--scale", choices=("column", "tile"), default="column", help=scales)
    if probe == "compare":
        usual = f"names with commas, or all; without it those of {','.join(USUAL)} that suit the network"
        parser.add_argument("--methods", help=usual)
    for name, knob in knobs.items():
        parser.add_argument(f"--{name}", default=knob.default, type=value, help="default %(default)s")
    args = parser.parse_args(list(words))
    check_sides(args)
    named = getattr(args, "methods", None)
    args.usual = probe == "compare" and named is None
    args.methods = _methods(probe, named)
    if args.methods == ["all"]:
        args.methods = [name for name in METHODS if name != "backward_rules"]  # which is guided_backprop
        args.usual = True
    for name in args.methods:
        method_of(name)
    args.knobs = {
        name: like(knob.default, getattr(args, name), name, knob.annotation) for name, knob in knobs.items()
    }
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture: a row for each image and objective."""
    files = files_of(args.images)
    network, names, size, channels = network_of(args)
    questions = _questions(args, network, names)
    extra = ["mask", "cut-out"] * (args.probe == "segment")
    columns = 1 + len(args.methods) + len(extra)
    check_fits(args, len(files), size, rows=len(files) * max(1, len(questions)), columns=columns)
    read = readable(files, args, size, channels)
    names_of_files, images = names_of(list(read)), torch.stack(list(read.values()))
    truths = [true_class(file, names) for file in read]
    rows: dict[str, MapRow] = {}
    zeros = Counter[str]()
    for start, part in in_parts(images, args.device):
        known = truths[start : start + len(part)]
        for place, what, row in _rows(args, network, names, part, known, questions, zeros):
            rows[f"{names_of_files[start + place]} {what}".rstrip()] = row
    say_zeros(zeros, len(rows))
    pixels = map_sheet(rows, look=args.look, scale=args.scale, side=args.side, others=extra)
    write_picture(pixels, args.out, f"{len(rows)} rows", title=title_of(args))


def _methods(probe: str, named: str | None) -> list[str]:
    if probe != "compare":
        return ["saliency" if probe == "segment" else probe]
    return USUAL.copy() if named is None else [name.strip() for name in named.split(",")]


def _knobs(probe: str) -> dict[str, inspect.Parameter]:
    """The options of a probe."""
    functions = (
        METHODS.values() if probe == "compare" else [grabcut if probe == "segment" else method_of(probe)]
    )
    known = {name: knob for function in functions for name, knob in knobs_of(function).items()}
    return {name: knob for name, knob in known.items() if name != "progress"}


def _rows(
    args: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    images: Float[Tensor, "n c h w"],
    truths: Sequence[int | None],
    questions: Mapping[str, Question],
    zeros: Counter[str],
) -> Iterator[tuple[int, str, MapRow]]:
    """For each image and objective: the image's index, its label, and its row; counts maps of zeros."""
    probabilities = predict(network, images).softmax(1)
    guesses = probabilities.argmax(1)
    questions = questions or {"": (None, SCORES[args.of](guesses, layer=args.score_layer))}
    knobs = {} if args.probe == "segment" else args.knobs
    maps = maps_of(args, network, images, [objective for _, objective in questions.values()], **knobs)
    zeros.update(zero_maps(maps))
    for k, (what, (number, _)) in enumerate(questions.items()):
        for place, image in enumerate(images):
            own = {name: values[k, place] for name, values in maps.items()}
            guess, truth = int(guesses[place]), truths[place]
            lines = [] if truth is None else [f"true {names[truth]}"]
            lines.append(f"pred {names[guess]}: {probabilities[place, guess]:.0%}")
            if number is None and what:  # a channel or a unit is not a class
                lines.append(what)
            notes = {}
            if number not in (None, guess):
                of = f"of {names[number]} ({probabilities[place, number]:.0%})"
                if len(own) == 1:
                    notes = {method: [f"map {of}"] for method in own}
                else:
                    lines.append(f"maps {of}")
            others = []
            if args.probe == "segment":
                mask = grabcut(image[None], own["saliency"][None], **args.knobs)
                found = sized(picture(mask[0].float()), args.side)
                others.append(found if mask.any() else captioned(found, "no object found"))
                others.append(sized(picture(cut_out(image[None], mask)[0]), args.side))
            row = MapRow(image, own, "\n".join(lines), truth not in (None, guess), notes, others)
            yield place, what if len(questions) > 1 or number is None else "", row.kept(args.side)


def maps_of(
    args: argparse.Namespace,
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objectives: Objectives,
    **knobs: Any,
) -> dict[str, Float[Tensor, "*k n _ h w"]]:
    """The maps of each of `args.methods`; the `usual` ones are left out where they do not suit the network.

    Raises:
        ValueError: a method that was asked for cannot be used, or none of the usual ones can.
    """
    maps = {}
    for name in list(args.methods):
        try:
            maps[name] = attribute(name, network, images, objectives, **knobs, progress=name)
        except ValueError as error:
            if not args.usual:
                raise
            args.methods.remove(name)
            print(f"note: without {name}: {error}", file=sys.stderr)
    if not maps:
        raise ValueError("the network is made for none of the usual methods; name others by --methods")
    return maps


def say_zeros(zeros: Mapping[str, int], total: int) -> None:
    """Say in one line which maps are 0 everywhere, if any are."""
    if line := zeros_in_words(zeros, total):
        print(f"note: {line}", file=sys.stderr)


def _questions(args: argparse.Namespace, network: nn.Module, names: Sequence[str]) -> dict[str, Question]:
    """The objectives to explain for every image; none for the predicted class."""
    for layer in (args.score_layer, args.knobs.get("layer") or ""):
        layer_of(network, layer)
    found: dict[str, Question] = {}
    for number in classes_of(args.target or (), names):
        found[names[number]] = number, SCORES[args.of](number, layer=args.score_layer)
    for option in ("channel", "unit"):
        for words in getattr(args, option) or ():
            found[f"{option} {words}"] = None, feature_of(option, words, network)
    return found
