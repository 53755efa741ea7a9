"""Command: images that fool a network, by gradient ascent or evolution, and photographs that do."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fulgurite.cli.held_interruptions import INTERRUPTED
from fulgurite.cli.image_names import file_name
from fulgurite.cli.image_options import check_sides, like, parser_of, value
from fulgurite.cli.inputs import check_fits, classes_of, files_of, images_of, network_of
from fulgurite.cli.outputs import check_folder, title_of, write_picture
from fulgurite.probes.attacks.render_attack import caption, row
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.counted import counted
from fulgurite.probes.objectives import pooled
from fulgurite.probes.predict import predict
from fulgurite.probes.render import RGB, captioned, grid, picture, sheet, write
from fulgurite.probes.score_layer import check_score_layer
from fulgurite.probes.synthesis.evolution import map_elites
from fulgurite.probes.synthesis.fooling import FoolingImages, fooled_photographs, fooling_images
from fulgurite.probes.synthesis.watch import Watch

PROBES = {"fool": "Noise that a network classifies with confidence, or photographs that it misclassifies."}
ABOUT = """

Without photographs: noise that is classified as each class, by gradient ascent (gradient) or by evolution of
pixels (direct) or of pattern-producing networks (cppn); Nguyen et al. 2015. With photographs, --target names
the class that they are to be classified as: shown are the photograph, the perturbation, ten times that, and
the result; Szegedy et al. 2014. Ctrl-C ends it with what it has reached."""
DEFAULT_CLASSES = 10
_KNOBS = {
    "gradient": ("confidence", "steps", "seed"),
    "direct": ("generations", "children", "seed"),
    "cppn": ("generations", "children", "seed"),
}
_DEFAULTS = {"confidence": 0.99, "steps": 100, "generations": 300, "children": 100, "seed": 0}


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of fooling images.

    Raises:
        ValueError: an unknown option, a value of the wrong kind, or one that the method does not take.
    """
    parser = parser_of(probe, PROBES[probe] + ABOUT, side=112, needs_images=False)
    parser.add_argument(
        "--target",
        action="append",
        help="a class, by name or number; several with commas; without it the first ten, or of "
        "direct and cppn the ten of highest confidence",
    )
    parser.add_argument("--method", choices=_KNOBS, default="gradient", help="default %(default)s")
    parser.add_argument("--save", type=Path, help="a folder for the results, each as a PNG at its own size")
    parser.add_argument("--score_layer", help="where scores are read, if not at the output")
    for name, default in _DEFAULTS.items():
        methods = " and ".join(method for method, knobs in _KNOBS.items() if name in knobs)
        parser.add_argument(f"--{name}", type=value, help=f"of {methods}; default {default}")
    args = parser.parse_args(list(words))
    check_sides(args)
    check_folder(args.save, "save")
    for name, default in _DEFAULTS.items():
        given = getattr(args, name)
        if given is None:
            setattr(args, name, default)
        elif name not in _KNOBS[args.method]:
            raise ValueError(f"--{name} is not for --method {args.method}")
        else:
            like(default, given, name)
            if name != "seed" and given < (0 if name == "confidence" else 1):
                raise ValueError(f"--{name} {given}; wanted at least 1")
    if args.images and args.method != "gradient":
        raise ValueError(f"photographs with --method {args.method}; wanted --method gradient")
    if args.images and args.target is None:
        raise ValueError("photographs without --target; wanted the class that they are to be classified as")
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture, and print the confidence."""
    files = files_of(args.images) if args.images else []
    network, names, size, channels = network_of(args)
    check_score_layer(network, args.score_layer or "", (channels, size, size))
    if files:
        _photographs(args, network, names, images_of(files, args, size, channels))
        return
    asked = args.target or [str(number) for number in range(min(DEFAULT_CLASSES, len(names)))]
    targets = classes_of(asked, names)
    check_fits(args, len(targets), size, rows=len(targets), columns=1)
    watch = Watch("fool", interruptible=True)
    shape, layer = (channels, size, size), args.score_layer or ""
    if args.method == "gradient":
        found = fooling_images(
            network,
            torch.tensor(targets, device=args.device),
            shape,
            seeds=[args.seed + place for place in range(len(targets))],
            layer=layer,
            confidence=args.confidence,
            steps=args.steps,
            watch=watch,
        )
        images, probabilities = found.images, found.probabilities
        _report(args, found)
    else:
        elites = map_elites(
            network,
            shape,
            encoding=args.method,
            children=args.children,
            generations=args.generations,
            layer=layer,
            seed=args.seed,
            watch=watch,
        )
        if args.target is None:  # those of highest confidence
            targets = elites.probabilities.topk(len(targets)).indices.tolist()
        images, probabilities = elites.images[targets], elites.probabilities[targets]
        for number in sorted({0, *(len(elites.history) * k // 4 - 1 for k in (1, 2, 3, 4))} - {-1}):
            line = elites.history[number]
            sure = int((line >= 0.99).sum())
            print(
                f"generation {number + 1}: median probability {float(line.median()):.4f}, "
                f"{sure} of {counted(len(line), 'class')} at 99 %"
            )
    if watch.interrupted:
        print(INTERRUPTED, file=sys.stderr)
    _save(args, {names[target]: image for target, image in zip(targets, images, strict=True)})
    tiles = [
        captioned(sized(picture(image), args.side), caption(names[target], chance, side=args.side))
        for image, target, chance in zip(images, targets, probabilities.tolist(), strict=True)
    ]
    drawn = grid(tiles, columns=5 if len(tiles) > 4 else None, gap=4)
    write_picture(drawn, args.out, counted(len(tiles), "class"), title=title_of(args))


def _photographs(
    args: argparse.Namespace, network: nn.Module, names: Sequence[str], read: tuple[list[str], Tensor]
) -> None:
    labels, images = read[0], read[1].to(args.device)
    targets = classes_of(args.target, names)
    check_fits(args, len(images) * len(targets), images.shape[2], rows=len(images) * len(targets), columns=4)
    classes = torch.tensor(targets, device=args.device).repeat(len(images))
    shown, watch = images.repeat_interleave(len(targets), 0), Watch("fool", interruptible=True)
    found = fooled_photographs(
        network,
        shown,
        classes,
        layer=args.score_layer or "",
        confidence=args.confidence,
        steps=args.steps,
        watch=watch,
    )
    if watch.interrupted:
        print(INTERRUPTED, file=sys.stderr)
    _report(args, found)
    before = pooled(predict(network, shown)).softmax(1)
    rows = dict[str, list[RGB]]()
    for place, (image, made, target) in enumerate(zip(shown, found.images, classes.tolist(), strict=True)):
        label, top = labels[place // len(targets)], int(before[place].argmax())
        rows[f"{label} as {names[target]}" if len(targets) > 1 else label] = row(
            image,
            made,
            caption(names[top], float(before[place, top]), side=args.side),
            caption(names[int(target)], float(found.probabilities[place]), side=args.side),
            times={1: "added", 10: "added, x 10"},
            side=args.side,
        )
        change = float((made - image).square().mean().sqrt())
        print(
            f"{label}: {names[target]} {float(found.probabilities[place]):.4f}, changed by {change:.4f} (rms)"
        )
    labelled = {
        f"{labels[place // len(targets)]} as {names[int(target)]}": made
        for place, (made, target) in enumerate(zip(found.images, classes.tolist(), strict=True))
    }
    _save(args, labelled)
    columns = ["image", "difference", "10 x difference", "result"]
    write_picture(
        sheet(rows, columns=columns), args.out, counted(len(images), "photograph"), title=title_of(args)
    )


def _save(args: argparse.Namespace, images: Mapping[str, Tensor]) -> None:
    if args.save is None:
        return
    args.save.mkdir(exist_ok=True)
    for name, image in images.items():
        write(picture(image), args.save / f"{file_name(name)}.png")


def _report(args: argparse.Namespace, found: FoolingImages) -> None:
    median = found.median_steps
    steps = "" if median != median else f", after {counted(round(median), 'step')} at the median"
    print(f"{found.rate:.0%} reached a probability of {args.confidence:g}{steps}")
