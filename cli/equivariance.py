"""Command: which layers of a run's network are equivariant to flips, rotations, scalings and translations."""

import argparse
from collections.abc import Sequence

from fulgurite.callbacks.equivariance import equivariance_chart
from fulgurite.callbacks.framework.sample import SampleData
from fulgurite.cli.image_options import Parser, add_device, add_picture, check_least
from fulgurite.cli.loaded_run import WORD, load_run
from fulgurite.cli.outputs import check_picture, check_writable_text, write_picture
from fulgurite.probes.atomic import csv_text, write_atomic
from fulgurite.probes.counted import counted
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.representation.equivariance import equivariance
from fulgurite.probes.representation.image_transforms import image_transform
from fulgurite.probes.style import drawn_in

ABOUT = """Linear maps from the features of transformed images back, at each layer of a run's network.

For each transformation and layer, the accuracy on test images as they are, on transformed ones, and on these
with their features mapped back: by moving positions back, also followed by 1 x 1 and 3 x 3 filters, fitted to
training images by ridge regression. HOG is a row of classical features, with its own linear classifier. The
picture has a chart for each transformation; a CSV file next to it also has the errors of the features. Lenc &
Vedaldi 2015."""


def run(verb: str, words: Sequence[str]) -> int:
    """Write the picture and the CSV, and print the table.

    Raises:
        ValueError: an unknown option, run, layer or transformation.
    """
    args = _parse(verb, words)
    table = args.out.with_suffix(".csv")
    check_picture(args)
    check_writable_text(table)
    own = load_run(args.run, args.device)
    found = equivariance(
        own.network,
        SampleData(own.training_images(args.fit)),
        SampleData(own.test_images(args.images)),
        args.transforms,
        layers=args.layers,
        epochs=args.epochs,
        hog=True,
        progress=lambda names: progress_bar(names, "equivariance", unit="transformation"),
    )
    print(found.text())
    write_atomic(table, csv_text(found.table()))
    images = counted(found.original[0].count, "image")
    summary = f"{counted(len(found.maps), 'transformation')}, {len(found.layers)} rows, {images}"
    with drawn_in(args.theme):
        chart = equivariance_chart(found.layers, {name: found.bars(name) for name in found.maps})
        write_picture(chart, args.out, summary, title=f"equivariance: {args.run}")
    return 0


def _parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(verb, ABOUT)
    parser.add_argument("run", metavar="RUN", help=WORD)
    parser.add_argument(
        "--transforms",
        help="with commas: hflip, vflip, rot90 (degrees), scale0.7, shift4x-2 (pixels); one of each kind",
    )
    parser.add_argument("--layers", help="with commas; the stages without it")
    parser.add_argument("--fit", type=int, default=2000, help="training images to fit to; %(default)s")
    parser.add_argument("--images", type=int, default=1000, help="test images to score on; %(default)s")
    parser.add_argument(
        "--epochs", type=int, default=0, help="also train a map 1 x 1 through the rest; %(default)s: do not"
    )
    add_picture(parser, "equivariance")
    add_device(parser)
    args = parser.parse_args(list(words))
    for name, least in (("fit", 2), ("images", 1), ("epochs", 0)):
        check_least(vars(args), [name], least)
    if args.transforms is not None:
        args.transforms = [image_transform(word).name for word in args.transforms.split(",")]
    args.layers = None if args.layers is None else [word.strip() for word in args.layers.split(",")]
    return args
