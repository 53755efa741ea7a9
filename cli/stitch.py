"""Command: the first layers of one run's network stitched to the last of another's, at each layer."""

import argparse
from collections.abc import Sequence

from fulgurite.callbacks.framework.sample import SampleData
from fulgurite.cli.image_options import Parser, add_device, add_picture, check_least
from fulgurite.cli.loaded_run import WORD, check_same_images, load_run
from fulgurite.cli.outputs import check_picture, check_writable_text, write_picture
from fulgurite.cli.unseen_images import left_out, unseen_images
from fulgurite.probes.atomic import csv_text, write_atomic
from fulgurite.probes.counted import counted
from fulgurite.probes.plots import category_plot
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.render import RGB
from fulgurite.probes.representation.stitching import Stitching, stitching
from fulgurite.probes.style import drawn_in

ABOUT = """The accuracy of one network with another's layers in place of its own, joined by linear maps.

RUN_A's layers up to one are joined to RUN_B's layers after it, by a convolution 1 x 1 that is fitted to
RUN_B's training images and scored on its test images, less those that RUN_A was trained on. Printed is the
accuracy for each layer and each kind of map, and with an untrained network in place of RUN_A: the difference
shows what both have learnt. The picture shows the same, and a CSV file next to it. Lenc & Vedaldi 2015."""
UNTRAINED = "untrained front"


def run(verb: str, words: Sequence[str]) -> int:
    """Write the picture and the CSV, and print the table.

    Raises:
        ValueError: an unknown option, run or layer, or networks that take other images.
    """
    args = _parse(verb, words)
    table = args.out.with_suffix(".csv")
    check_picture(args)
    check_writable_text(table)
    front, back = load_run(args.front, args.device), load_run(args.back, args.device)
    check_same_images(front, back)
    fit, (test, seen) = back.training_images(args.fit), unseen_images(front, back, args.images)
    found = stitching(
        front.network,
        back.network,
        SampleData(fit),
        SampleData(test),
        layers=layers_of(args.layers),
        epochs=args.epochs,
        control=not args.no_control,
        identity_start=args.identity_start,
        progress=lambda rounds: progress_bar(rounds, "stitching", unit="round"),
    )
    print("\n".join(filter(None, [found.text(), left_out(front, seen, test.part)])))
    write_atomic(table, csv_text(found.table()))
    summary = f"{counted(len(found.layers), 'layer')}, {counted(found.back.count, 'image')}"
    with drawn_in(args.theme):
        write_picture(stitching_plot(found), args.out, summary, title=f"{args.front} stitched to {args.back}")
    return 0


def stitching_plot(found: Stitching) -> RGB:
    """The accuracy at each layer by each kind of map, and with an untrained front by the last of them."""
    lines = {}
    if found.control:
        best = list(found.control)[-1]
        lines[UNTRAINED] = found.accuracies(best, control=True)
    lines |= {kind: found.accuracies(kind) for kind in found.stitched}
    lines["back network itself"] = [found.back.accuracy] * len(found.layers)
    return category_plot(found.names, lines, ylabel="accuracy when stitched after this layer", ymax=1.0)


def layers_of(word: str | None) -> list[tuple[str, str]] | None:
    """Layers with commas, each of both networks, or FRONT:BACK.

    Raises:
        ValueError: a layer without a name.
    """
    if word is None:
        return None
    found = []
    for part in word.split(","):
        one, both, other = part.strip().partition(":")
        if not one or (both and not other):
            raise ValueError(f"--layers {word}; wanted LAYER or FRONT:BACK, several with commas")
        found.append((one, other or one))
    return found


def _parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(verb, ABOUT)
    parser.add_argument("front", metavar="RUN_A", help=WORD)
    parser.add_argument("back", metavar="RUN_B", help="the same")
    parser.add_argument("--layers", help="LAYER or FRONT:BACK, several with commas; the stages without it")
    parser.add_argument("--fit", type=int, default=2000, help="training images to fit to; %(default)s")
    parser.add_argument("--images", type=int, default=1000, help="test images to score on; %(default)s")
    parser.add_argument("--epochs", type=int, default=5, help="of training the maps, 0 for none; %(default)s")
    parser.add_argument("--no_control", action="store_true", help="without the untrained front")
    begun = "also train a map that begins with the identity, next to the one that begins with least squares"
    parser.add_argument("--identity_start", action="store_true", help=begun)
    add_picture(parser, "stitch")
    add_device(parser)
    args = parser.parse_args(list(words))
    for name, least in (("fit", 2), ("images", 1), ("epochs", 0)):
        check_least(vars(args), [name], least)
    return args
