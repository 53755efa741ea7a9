"""Command: how a concept, given by images, changes a class score (TCAV)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli.image_options import about_of, check_least, check_sides, parser_of
from fulgurite.cli.inputs import check_fits, class_of, files_of, images_of, network_of
from fulgurite.cli.outputs import write_picture
from fulgurite.data.image_files import printable
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.counted import counted
from fulgurite.probes.plots import category_plot
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, grid, picture, stacked
from fulgurite.probes.representation.concept_vectors import (
    ConceptSensitivity,
    concept_sensitivity,
    features_and_slopes,
)

PROBES = {
    "tcav": "Does a concept that you show in images change a class score? TCAV, with a test against chance."
}
SHOWN, MOST = 8, 10_000
ABOUT = """

IMAGES are of the class. For each layer, prints the score, the cosine with the gradient, its p-value, and how
well the concept is separated from random images; the picture has the scores, and the images that lie farthest
along the concept in the last layer and farthest against it."""


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of a concept.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    about = about_of(concept_sensitivity)
    parser = parser_of(probe, f"{PROBES[probe]}\n\n{about}{ABOUT}", side=64)
    parser.add_argument("--class", dest="target", required=True, help="by name or number")
    parser.add_argument("--concept", type=Path, required=True, help="a folder with images of the concept")
    parser.add_argument("--random", type=Path, required=True, help="a folder with other images")
    parser.add_argument("--layers", required=True, help="with maps; several with commas")
    parser.add_argument("--score_layer", default="", help="where the score is read, if not at the output")
    parser.add_argument("--most", type=int, default=100, help="images of each folder; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the draws of random images")
    args = parser.parse_args(list(words))
    check_sides(args)
    check_least(vars(args), ["most"])
    if args.most > MOST:
        raise ValueError(f"--most {args.most}; wanted at most {MOST}: they are held in memory")
    if not 0 <= args.seed < 2**63:
        raise ValueError(f"--seed {args.seed}; wanted a whole number from 0")
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture, and print a line for each layer."""
    folders = {name: files_of([path])[: args.most] for name, path in _folders(args).items()}
    files = files_of(args.images)[: args.most]
    network, names, size, channels = network_of(args)
    target = class_of(args.target, names, option="class")
    layers = [layer.strip() for layer in args.layers.split(",")]
    for layer in (*layers, args.score_layer):
        layer_of(network, layer)
    check_fits(args, sum(map(len, folders.values())) + len(files), size, rows=4, columns=SHOWN)
    images, concept, others = (images_of(own, args, size, channels)[1] for own in (files, *folders.values()))
    found = []
    for layer in layers:
        found.append(
            concept_sensitivity(
                network,
                images,
                target,
                concept,
                others,
                layer,
                score_layer=args.score_layer,
                seed=args.seed,
            )
        )
        print(_line(found[-1]))
    title = f"{printable(args.concept.name)} for {names[target]}"
    sheet = _picture(network, images, found, target, title, args)
    write_picture(
        sheet, args.out, f"{title}: {counted(len(layers), 'layer')}, {counted(len(images), 'image')}"
    )


def _folders(args: argparse.Namespace) -> dict[str, Path]:
    folders = {"concept": args.concept, "random": args.random}
    for name, path in folders.items():
        if not path.is_dir():
            raise ValueError(f"--{name} {printable(path)} is not a folder; wanted a folder of images")
    return folders


def _line(found: ConceptSensitivity) -> str:
    return (
        f"{found.layer}: TCAV score {found.score:.2f} (standard deviation {float(found.scores.std()):.2f}), "
        f"cosine with the gradient {found.alignment:+.3f}, p = {found.p_value:.3g}; "
        f"separated from random images {found.accuracy:.0%}"
    )


def _picture(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    found: Sequence[ConceptSensitivity],
    target: int,
    title: str,
    args: argparse.Namespace,
) -> RGB:
    spread = [float(one.scores.std()) for one in found]
    means = [one.score for one in found]
    plot = category_plot(
        [one.layer for one in found],
        {title: means},
        ylabel="TCAV score",
        ymax=1.0,
        intervals=[
            (max(0.0, mean - own), min(1.0, mean + own)) for mean, own in zip(means, spread, strict=True)
        ],
    )
    last = found[-1]
    features, _ = features_and_slopes(network, images, target, last.layer, args.score_layer)
    order = (features @ last.vectors.mean(0)).argsort(descending=True)
    count = min(SHOWN, -(-len(images) // 2))
    rows = [
        captioned(
            grid([sized(picture(images[place]), args.side) for place in own.tolist()], columns=SHOWN, gap=4),
            words,
        )
        for own, words in (
            (order[:count], f"farthest along the concept in {last.layer}"),
            (order[-count:].flip(0), "farthest against it"),
        )
    ]
    plot = captioned(plot, *(f"{one.layer}: p = {one.p_value:.3g}" for one in found))
    return stacked([plot, *rows], gap=10)
