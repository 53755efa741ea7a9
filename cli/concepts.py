"""Command: a concept sheet of a class, from a folder of images."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli.image_options import about_of, check_least, check_sides, like, parser_of, value
from fulgurite.cli.inputs import batches_of, check_fits, class_of, files_of, network_of
from fulgurite.cli.outputs import title_of, write_picture
from fulgurite.probes.activations.concept_discovery import LEAST_CROP, concepts
from fulgurite.probes.activations.render_concepts import render_concepts
from fulgurite.probes.counted import counted
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of

PROBES = {"concepts": "Concepts of a class in your images: strongest crops, importance, and where they are."}
OPTIONS = {"count": 6, "most": 64, "crop": 0.35, "seed": 0}
CROPS, SHOWN = 6, 4
ABOUT = "\n\nOnly images that the network classifies as the class are used."


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of concepts.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    parser = parser_of(probe, f"{PROBES[probe]}\n\n{about_of(concepts)}{ABOUT}", side=96)
    parser.add_argument("--class", dest="target", required=True, help="by name or number")
    parser.add_argument("--layer", help="whose features are factorised; the last one with maps without it")
    parser.add_argument("--score_layer", default="", help="where scores are read, if not at the output")
    for name, about in (
        ("count", "concepts"),
        ("most", "images that are used, at most"),
        ("crop", "side of a crop, as a share of the image's"),
        ("seed", "of the factorisation"),
    ):
        parser.add_argument(
            f"--{name}", type=value, default=OPTIONS[name], help=f"{about}; default %(default)s"
        )
    args = parser.parse_args(list(words))
    check_sides(args)
    for name, default in OPTIONS.items():
        like(default, getattr(args, name), name)
    check_least(vars(args), ("count", "most"))
    if not LEAST_CROP <= args.crop <= 1:
        raise ValueError(f"--crop {args.crop}; wanted a share of {LEAST_CROP} to 1")
    if not args.seed >= 0:
        raise ValueError(f"--seed {args.seed}; wanted 0 or more")
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the sheet, and print what each concept adds to the score."""
    files = files_of(args.images)
    network, names, size, channels = network_of(args)
    target = class_of(args.target, names, option="class")
    for layer in (args.layer or "", args.score_layer):
        layer_of(network, layer)
    check_fits(args, min(len(files), args.most), size, rows=args.count, columns=CROPS + SHOWN)
    images = _of_class(args, network, files, size, channels, target, names).to(args.device)
    found = concepts(
        network,
        images,
        target,
        args.layer,
        count=args.count,
        crop=args.crop,
        score_layer=args.score_layer,
        seed=args.seed,
    )
    total = max(float(found.importance.abs().sum()), 1e-12)
    for place, importance in enumerate(found.importance.tolist()):
        share = f"{abs(importance) / total:.0%} of what all concepts add or take away"
        print(f"concept {place + 1}: adds {importance:+.4g} to the class score, {share}")
    explained = f"concepts together add {float(found.importance.sum()):.4g}"
    print(f"mean class score {float(found.scores.mean()):.4g}; {explained}")
    sheet = render_concepts(images, found, names[target], crops=CROPS, most=SHOWN, side=args.side)
    summary = (
        f"{counted(args.count, 'concept')} of {found.layer or 'logits'}, {counted(len(images), 'image')}"
    )
    write_picture(sheet, args.out, summary, title=title_of(args))


def _of_class(
    args: argparse.Namespace,
    network: nn.Module,
    files: Sequence[Path],
    size: int,
    channels: int,
    target: int,
    names: Sequence[str],
) -> Float[Tensor, "n c h w"]:
    """The images that the network classifies as the class.

    Raises:
        ValueError: there are none.
    """
    kept, predicted = list[Tensor](), Counter[int]()
    for images in batches_of(files, args, size, channels):
        classes = predict(network, images.to(args.device)).argmax(1).cpu()
        predicted.update(classes.tolist())
        kept += images[classes == target].unbind()
        if len(kept) >= args.most:
            break
    if not kept:
        usual = ", ".join(names[number] for number, _ in predicted.most_common(3))
        raise ValueError(
            f"the network puts none of the images into class {names[target]!r}, most into {usual}"
        )
    return torch.stack(kept[: args.most])
