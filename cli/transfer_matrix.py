"""Command: whether adversarial images of each of several networks fool the others."""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from fulgurite.cli.image_options import check_sides, parser_of
from fulgurite.cli.inputs import check_fits, files_of, network_of, readable
from fulgurite.cli.outputs import check_picture, check_writable_text, write_picture
from fulgurite.cli.several_networks import check_counts, each_network
from fulgurite.cli.shortcuts import labels_of
from fulgurite.probes.atomic import csv_text, write_atomic
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.render_attack import within
from fulgurite.probes.attacks.threat import THREATS, threat_within
from fulgurite.probes.attacks.transferable_attacks import diverse
from fulgurite.probes.counted import counted
from fulgurite.probes.render import RGB, captioned, enlarged, heat, noted, scale_bar, sheet, stacked
from fulgurite.probes.robustness.transfer_matrix import NONE_RIGHT, TransferMatrix, transfer_matrix
from fulgurite.probes.style import drawn_in

OWN = ("weights",)
ATTACKS = {
    "pgd": partial(pgd, steps=20),
    "mifgsm": partial(pgd, steps=10, momentum=1.0, start="image"),
}
ABOUT = """Attack each network, and test the images on all: a row for each source, a column for each target.

FOLDER holds a folder for each class, called by the class's name or number. --network is given several times,
--weights once for each, or not at all. A cell is the share of images that the target classifies correctly
when clean and misclassifies when attacked; above is its clean accuracy, below the share for random noise of
the same size. The figures are also written as CSV, next to the picture."""


def run(verb: str, words: Sequence[str]) -> int:
    """Write the picture and the CSV, and print the matrix.

    Raises:
        ValueError: an unknown option, networks of different classes, or images whose folders name no class.
    """
    args = _parse(verb, words)
    table = args.out.with_suffix(".csv")
    check_picture(args)
    check_writable_text(table)
    files = files_of(args.images)
    networks, size, channels = dict[str, nn.Module](), 0, 0
    known: Sequence[str] = ()
    for title, own in each_network(args, OWN):
        networks[title], names, side, depth = network_of(own)
        if known and (list(names) != list(known) or depth != channels):
            raise ValueError(
                f"{title} has {counted(len(names), 'class')} on {depth} channels, and {next(iter(networks))} "
                f"{len(known)} on {channels}, or others; wanted networks of the same classes and channels"
            )
        size = size or side
        known, channels, args.margin = names, depth, own.margin
    check_fits(args, len(files), size, rows=len(networks) + 2 + args.ensemble, columns=len(networks))
    labels = dict(zip(files, labels_of(files, known), strict=True))
    read = readable(files, args, size, channels)
    truth = torch.tensor([labels[file] for file in read])
    attack = diverse(ATTACKS[args.attack]) if args.diverse else ATTACKS[args.attack]
    images = torch.stack(list(read.values()))
    found = transfer_matrix(networks, images, truth, args.threat, attack, ensemble=args.ensemble)
    print(found.text())
    write_atomic(table, csv_text(found.table()))
    legend = (
        f"{args.attack}{' with input diversity' * args.diverse} within {within(args.threat)}",
        counted(len(read), "image"),
        "rows attacked, columns fooled",
    )
    summary = f"{counted(len(networks), 'network')}, {counted(len(read), 'image')}"
    with drawn_in(args.theme):
        drawn = noted(_drawn(found, args.side), *legend)
        write_picture(drawn, args.out, summary, title="transfer of attacks")
    return int(bool(args.left_out))


def _parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(verb, ABOUT, side=72, several=True)
    parser.add_argument("--eps", default="8/255", help="how far images may be moved; default %(default)s")
    parser.add_argument("--threat", choices=THREATS, default="linf", help="the norm of the radius")
    parser.add_argument("--attack", choices=ATTACKS, default="pgd", help="PGD-20, or MI-FGSM with 10 steps")
    changed = "show the attacked network each pass at a random size and place, for attacks that transfer"
    parser.add_argument("--diverse", action="store_true", help=changed)
    together = "a row more: for each target, an attack on all the other networks together"
    parser.add_argument("--ensemble", action="store_true", help=together)
    args = parser.parse_args(list(words))
    check_sides(args)
    check_counts(args, OWN)
    args.threat = threat_within(THREATS[args.threat], args.eps, f"--eps {args.eps}")
    args.left_out = []
    return args


def _drawn(found: TransferMatrix, side: int) -> RGB:
    """A tile for each number, the brighter the larger it is."""

    def tiles(shares: Sequence[float]) -> list[RGB]:
        return [
            captioned(
                enlarged(heat(torch.tensor([[share]]).nan_to_num(0), top=1.0), side=side),
                NONE_RIGHT if share != share else f"{share:.1%}",
            )
            for share in shares
        ]

    rows = {"clean accuracy": tiles(found.clean())}
    rows |= {name: tiles(shares) for name, shares in zip(found.sources, found.success(), strict=True)}
    return stacked([sheet(rows, columns=found.names), scale_bar("magnitude", 1.0, "share of images")], gap=4)
