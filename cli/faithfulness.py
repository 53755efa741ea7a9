"""Command: whether attribution maps are faithful, by method: sheet, table and CSV."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fulgurite.cli.attribution import maps_of, say_zeros
from fulgurite.cli.image_names import names_of
from fulgurite.cli.image_options import check_sides, like, parser_of, value
from fulgurite.cli.inputs import (
    check_fits,
    class_of,
    cut_of,
    files_of,
    in_parts,
    network_of,
    readable,
)
from fulgurite.cli.masks import masks_of, outlined
from fulgurite.cli.outputs import check_writable_text, title_of, write_picture
from fulgurite.data.image_files import printable
from fulgurite.probes.activations.layer_table import aligned
from fulgurite.probes.atomic import csv_text, write_atomic
from fulgurite.probes.attribution.faithfulness import Curves
from fulgurite.probes.attribution.faithfulness_measures import (
    OF_MASKS,
    means,
    measure,
    render_curves,
    render_randomisation,
)
from fulgurite.probes.attribution.map_sheets import MapRow, map_sheet
from fulgurite.probes.attribution.methods import method_of
from fulgurite.probes.attribution.model_randomisation import Randomisation, cascading_randomisation
from fulgurite.probes.attribution.perturbations import Fill
from fulgurite.probes.attribution.render_maps import zero_maps
from fulgurite.probes.counted import counted
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import stacked

PROBES = {
    "faithfulness": "Whether maps are faithful: deletion, insertion, infidelity, masks, random weights."
}
QUICK: dict[str, Any] = {"steps": 8, "draws": 8, "masks": 200, "samples": 200}
"""Draws of methods that average over copies, for ranks only: each runs once more per layer."""
AVERAGED: dict[str, Any] = {"steps": 16}
"""Of integrated gradients: maps correlate 0.98 by rank with those of 150 (SqueezeNet, four photographs)."""
USUAL = ["input_x_gradient", "integrated_gradients", "guided_backprop", "grad_cam", "layer_cam"]
ABOUT = """
deletion    area under the class's probability as the pixels ranked highest are hidden first: small is good;
            the first half step alone is p / (2 steps), so more --steps distinguish good maps
insertion   the same as they alone are shown first: large is good
infidelity  share of the score's change under random squares that the map does not predict: small is good
pointing    with --masks, outlined in the picture: how often the largest value lies on the object
inside      with --masks: share of the positive values on the object, next to the object's share of the image
random      with --randomise: rank correlation with the maps of a network of random weights: near 0 is good

The class explained is the predicted one, if none is named; integrated gradients take 16 steps. A table is
printed; numbers of each image go to a CSV file next to the picture."""


@dataclass
class _Answers:
    """The measurements so far, by method."""

    rows: dict[str, MapRow] = field(default_factory=dict)
    lines: list[list[str]] = field(default_factory=list)
    values: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)
    curves: dict[str, list[Curves]] = field(default_factory=dict)
    random: list[Randomisation] = field(default_factory=list)
    zeros: Counter[str] = field(default_factory=Counter)


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of faithfulness.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    parser = parser_of(probe, PROBES[probe] + "\n" + ABOUT, side=144)
    parser.add_argument("--methods", help=f"names with commas; {','.join(USUAL)} without it")
    parser.add_argument("--target", help="a class by name or number; the predicted one without it")
    parser.add_argument("--layer", help="whose maps the CAM methods weight; the last one without it")
    parser.add_argument("--score_layer", default="", help="where scores are read, if not at the output")
    parser.add_argument(
        "--masks", type=Path, help="a folder: of each image a picture of its name, 0 off the object"
    )
    parser.add_argument("--steps", type=value, default=10, help="points of the curves; default %(default)s")
    parser.add_argument("--draws", type=value, default=30, help="squares for infidelity; default %(default)s")
    parser.add_argument("--tolerance", type=value, default=0.0, help="of pointing, in pixels; default 0")
    parser.add_argument(
        "--fill",
        type=value,
        default="mean",
        help="what replaces hidden pixels: mean, grey, blur or a level",
    )
    parser.add_argument("--randomise", action="store_true", help="also with random weights: see random")
    args = parser.parse_args(list(words))
    check_sides(args)
    args.usual = args.methods is None
    args.methods = USUAL.copy() if args.usual else [name.strip() for name in args.methods.split(",")]
    args.methods = list(dict.fromkeys(args.methods))
    for name in args.methods:
        method_of(name)
    for name, least in {"steps": 1, "draws": 1}.items():
        if like(parser.get_default(name), getattr(args, name), name) < least:
            raise ValueError(f"--{name} {getattr(args, name)}; wanted at least {least}")
    if like(0.0, args.tolerance, "tolerance") < 0:
        raise ValueError(f"--tolerance {args.tolerance}; wanted a number of pixels, 0 or more")
    args.fill = like("mean", args.fill, "fill", Fill)
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture and the CSV, and print the table."""
    table = args.out.with_suffix(".csv")
    check_writable_text(table)
    files = files_of(args.images)
    network, names, size, channels = network_of(args)
    for layer in (args.score_layer, args.layer or ""):
        layer_of(network, layer)
    target = None if args.target is None else class_of(args.target, names)
    check_fits(args, len(files), size, rows=len(files) + 3, columns=1 + len(args.methods))
    read = readable(files, args, size, channels)
    masks = None if args.masks is None else masks_of(args.masks, list(read), cut_of(args, size))
    labels, images = names_of(list(read)), torch.stack(list(read.values()))
    found = _Answers()
    for start, part in in_parts(images, args.device):
        own = slice(start, start + len(part))
        _measure(
            args, network, names, part, None if masks is None else masks[own], target, labels[own], found
        )
    say_zeros(found.zeros, len(images))
    _write(args, found, table, masks)


def _measure(
    args: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    images: Float[Tensor, "n c h w"],
    masks: Bool[Tensor, "n h w"] | None,
    target: int | None,
    labels: Sequence[str],
    found: _Answers,
) -> None:
    """Add the measurements of some of the images."""
    probabilities = predict(network, images).softmax(1)
    classes = probabilities.argmax(1) if target is None else torch.full_like(probabilities.argmax(1), target)
    maps = maps_of(
        args, network, images, class_score(classes, layer=args.score_layer), layer=args.layer, **AVERAGED
    )
    found.zeros.update(zero_maps(maps))
    measures = ["deletion", "insertion", "infidelity", *(OF_MASKS if masks is not None else ())]
    values, curves = measure(
        network,
        images,
        classes,
        maps,
        measures,
        masks=masks,
        score_layer=args.score_layer,
        steps=args.steps,
        draws=args.draws,
        fill=args.fill,
        tolerance=args.tolerance,
        progress="faithfulness",
    )
    for name in maps:
        found.curves.setdefault(name, []).append(curves[name])
        for what, own in values[name].items():
            found.values.setdefault(name, {}).setdefault(what, []).append(own.cpu())
    if args.randomise:
        score = class_score(classes, layer=args.score_layer)
        found.random.append(
            cascading_randomisation(network, images, score, [*maps], layer=args.layer, **QUICK)
        )
    shares = None if masks is None else masks.flatten(1).float().mean(1).tolist()
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = names[int(classes[place])]
        own = {method: values[place] for method, values in maps.items()}
        lines = [f"{name}: {probabilities[place, classes[place]]:.0%}"]
        lines += [] if shares is None else [f"object {shares[place]:.0%} of the image"]
        numbers = {
            method: _brief({what: float(one[place]) for what, one in values[method].items()})
            for method in maps
        }
        seen = image if masks is None else outlined(image, masks[place])
        found.rows[label] = MapRow(seen, own, "\n".join(lines), notes=numbers).kept(args.side)
        found.lines += [
            [label, name, method, *(_cell(float(own[place])) for own in values[method].values())]
            + ([] if shares is None else [_cell(shares[place])])
            for method in maps
        ]


def _write(args: argparse.Namespace, found: _Answers, table: Path, masks: Tensor | None) -> None:
    methods = list(found.values)
    averages = means(
        {name: {what: torch.cat(own) for what, own in each.items()} for name, each in found.values.items()}
    )
    measures = list(averages[methods[0]])
    random = _joined(found.random)
    head = ["method", *measures, *(["random"] if random else [])]
    lines = [
        [name, *(_cell(own) for own in averages[name].values())]
        + ([_cell(float(random.correlations[name][-1].mean()))] if random else [])
        for name in methods
    ]
    print(aligned(head, lines, left=1))
    if masks is not None:
        print(f"the objects take {masks.flatten(1).float().mean():.1%} of the images")
    head = ["image", "class", "method", *measures, *["object_share"] * (masks is not None)]
    curves = {
        name: Curves(
            own[0].shares,
            torch.cat([each.deletion for each in own]),
            torch.cat([each.insertion for each in own]),
        )
        for name, own in found.curves.items()
    }
    parts = [map_sheet(found.rows, side=args.side), render_curves(curves)]
    parts += [render_randomisation(random)] if random else []
    write_atomic(table, csv_text([head, *found.lines]))
    summary = f"{counted(len(found.rows), 'image')}, {printable(table)}"
    write_picture(stacked(parts), args.out, summary, title=title_of(args))


def _joined(parts: Sequence[Randomisation]) -> Randomisation | None:
    if not parts:
        return None
    correlations: Mapping[str, Tensor] = {
        name: torch.cat([part.correlations[name] for part in parts], 1) for name in parts[0].correlations
    }
    return Randomisation(parts[0].layers, correlations)


def _brief(values: Mapping[str, float]) -> list[str]:
    """The numbers of a map, in two lines."""
    lines = [
        f"del {values['deletion']:.2f}  ins {values['insertion']:.2f}",
        f"infid {values['infidelity']:.2f}",
    ]
    pointing, inside = (values.get(name, float("nan")) for name in ("pointing", "inside"))
    if pointing != pointing:  # no mask, or an empty one
        return lines
    share = f", {inside:.0%} inside" if inside == inside else ""  # of a map without positive values, none
    return [lines[0], lines[1], f"{'hit' if pointing else 'miss'}{share}"]


def _cell(number: float) -> str:
    return f"{number:z.3f}" if number == number else ""
