"""Command: two runs, or two checkpoints of one, compared on a page; or attribution methods on images."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from fulgurite.cli import comparison, comparison_films, comparison_images, comparison_layers, image_probes
from fulgurite.cli.html_page import FILE, write_page
from fulgurite.cli.image_options import Parser, check_least
from fulgurite.cli.loaded_run import WORD, check_same_images, load_run
from fulgurite.cli.outputs import check_folder
from fulgurite.cli.unseen_images import unseen_images
from fulgurite.data.image_files import printable
from fulgurite.probes.atomic import check_writable, write_atomic
from fulgurite.probes.attacks.threat import Linf, threat_within
from fulgurite.recipes.run import FILE as RUN

ABOUT = """One page on two runs, or on two checkpoints of one: which is better, and where they agree and
differ.

Metrics of both on RUN_B's test images, less those that RUN_A was trained on, with the test for a difference;
the CKA of all stages; the stitching curve (see `stitch`); class images side by side; the images on which the
two are confident of different predictions, with the pixels that each uses; and the films of their probes,
animated. Written are a page, index.html, its pictures, and report.json.

compare IMAGE... --network NAME shows several attribution methods of images side by side instead."""
NUMBERS = "report.json"


def run(verb: str, words: Sequence[str]) -> int:
    """Write the page; where no run is named, show attribution methods of images.

    Raises:
        ValueError: an unknown option or run, or runs of other classes or images.
    """
    if not any(_is_run(word) for word in words):
        if {"-h", "--help"} & {*words}:
            print(_parser(verb).format_help())
        return image_probes.run(verb, words)
    args = _parse(verb, words)
    one, other = load_run(args.one, args.device), load_run(args.other, args.device)
    check_same_images(one, other)
    test, seen = unseen_images(one, other, args.images)
    two = comparison.Comparison(one, other, test, seen)
    args.out.mkdir(exist_ok=True)
    check_writable(args.out / FILE)
    sections = [
        comparison.about(two),
        comparison.metrics(two, args.eps, args.attacked),
        comparison_layers.cka(two),
    ]
    sections.append(comparison_layers.stitched(two, other.training_images(args.fit), args.epochs))
    if args.class_images:
        count = two.logits[1].shape[1]
        sections.append(comparison_images.imagined(two, range(min(args.class_images, count))))
    sections.append(comparison_images.disagreements(two, args.most))
    sections.append(comparison_films.films(two))
    write_page(args.out, f"Comparison of {one.title} and {other.title}", sections)
    write_atomic(args.out / NUMBERS, two.json())
    accuracies = ", ".join(
        f"{title} {value:.1%}"
        for title, value in zip(two.titles, two.found["metrics"]["accuracy"], strict=True)
    )
    print(f"{printable(args.out / FILE)}: accuracy {accuracies}, on {len(two.test)} {two.test.part} images")
    return 0


def _is_run(word: str) -> bool:
    return any((Path(part) / RUN).is_file() for part in (word, word.partition("@")[0]) if part)


def _parser(verb: str) -> Parser:
    parser = Parser(verb, ABOUT)
    parser.add_argument("one", metavar="RUN_A", help=WORD)
    parser.add_argument("other", metavar="RUN_B", help="the same")
    parser.add_argument("--out", type=Path, default=Path("comparison"), help="a folder; %(default)s")
    parser.add_argument("--images", type=int, default=1000, help="test images; %(default)s")
    parser.add_argument("--fit", type=int, default=1000, help="training images for stitching; %(default)s")
    parser.add_argument("--epochs", type=int, default=2, help="of training the maps; %(default)s")
    parser.add_argument("--class_images", type=int, default=6, help="classes that are shown; %(default)s")
    parser.add_argument("--most", type=int, default=8, help="disagreements that are shown; %(default)s")
    parser.add_argument("--eps", help="also the accuracy under PGD-20 within so much, Linf, such as 8/255")
    parser.add_argument("--attacked", type=int, default=200, help="images that are attacked; %(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def _parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    args = _parser(verb).parse_args(list(words))
    check_least(vars(args), ("fit", "images"), 4)
    check_least(vars(args), ("most", "attacked"))
    check_least(vars(args), ("epochs", "class_images"), 0)
    if args.eps is not None:
        args.eps = threat_within(Linf, args.eps, f"--eps {args.eps}")
    check_folder(args.out, "out")
    return args
