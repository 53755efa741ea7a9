"""Command: one perturbation that fools a network on most images, and how far it fools others."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fulgurite.cli.image_names import names_of
from fulgurite.cli.image_options import check_sides, parser_of
from fulgurite.cli.inputs import AT_ONCE, batches_of, check_fits, files_of, network_of, readable
from fulgurite.cli.outputs import check_picture, title_of, write_picture
from fulgurite.cli.several_networks import check_counts, each_network
from fulgurite.probes.attacks.render_attack import magnification, row, within
from fulgurite.probes.attacks.threat import THREATS, threat_within
from fulgurite.probes.attacks.universal import fooling_rate, universal
from fulgurite.probes.counted import counted
from fulgurite.probes.predict import predict
from fulgurite.probes.render import RGB, noted, sheet

OWN = ("weights",)
MOST_PASSES, SHOWN = 1000, 4
ABOUT = """A universal perturbation: one shift for all images of a folder that changes predictions.

It is computed for the first --network, on all images except every fourth. On these, the command prints the
share of predictions that it changes, for each --network, and that of noise of the same values at random
places. Images are read batch by batch in each pass; no labels are needed. The picture shows some held-out
images."""


class _Folder:
    """Images of files, read again in each pass."""

    def __init__(self, files: Sequence[Path], args: argparse.Namespace, size: int, channels: int):
        self.files, self.args, self.size, self.channels = files, args, size, channels

    def __iter__(self) -> Iterator[Tensor]:
        read = list[Path]()
        yield from batches_of(self.files, self.args, self.size, self.channels, read=read)
        self.files = read  # unreadable images are named once


def run(verb: str, words: Sequence[str]) -> int:
    """Write the picture, and print the fooling rates.

    Raises:
        ValueError: an unknown option, too few images, or networks that take other images.
    """
    args = _parse(verb, words)
    check_picture(args)
    files = files_of(args.images)
    held_out = files[3::4]
    if not held_out:
        raise ValueError(f"{counted(len(files), 'image')}; wanted at least 4, as every fourth is held out")
    networks, size, channels = dict[str, nn.Module](), 0, 0
    names: Sequence[str] = ()
    for title, own in each_network(args, OWN):
        networks[title], known, side, depth = network_of(own)
        if channels and depth != channels:
            raise ValueError(f"{title} takes {depth} channels, and {next(iter(networks))} {channels}")
        if not names:
            names, size, args.margin = known, side, own.margin
        channels = depth
    check_fits(args, AT_ONCE, size, rows=SHOWN, columns=3)
    title, network = next(iter(networks.items()))
    test = _Folder(held_out, args, size, channels)
    made_on = _Folder([file for file in files if file not in held_out], args, size, channels)
    how = {"by": args.by, "passes": args.passes, "tile": args.tile}
    shift = universal(network, made_on, args.threat, **how).cpu()
    for name, own in networks.items():
        found = fooling_rate(own, test, shift, args.threat)
        (low, high), (least, most) = found.interval(), found.noise_interval()
        print(
            f"{name}: {found.rate():.1%} of {found.images} held-out images fooled ({low:.1%} to {high:.1%}); "
            f"by noise {found.noise_rate():.1%} ({least:.1%} to {most:.1%})"
        )
    shown = readable(test.files[:: max(1, len(test.files) // SHOWN)][:SHOWN], args, size, channels)
    paper = _drawn(args, network, names, shown, shift)
    legend = f"one shift within {within(args.threat)} for all, of {title}; mid-grey is 0"
    write_picture(
        noted(paper, legend),
        args.out,
        f"{counted(len(files), 'image')}, {counted(len(networks), 'network')}",
        title=title_of(args, "universal shift"),
    )
    return int(bool(args.left_out))


def _drawn(
    args: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    images: dict[Path, Tensor],
    shift: Tensor,
) -> RGB:
    rows, scale = dict[str, list[RGB]](), magnification(shift)
    for name, image in zip(names_of(list(images)), images.values(), strict=True):
        moved = args.threat.bounded((image + shift)[None])[0]
        logits = predict(network, torch.stack([image, moved]).to(args.device))
        before, after = (names[int(answer)] for answer in logits.argmax(1))
        rows[name] = row(image, moved, before, after, times={scale: f"x {scale:g}"}, side=args.side)
    return sheet(rows, columns=["image", "shift", "sum"])


def _parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(verb, ABOUT, side=112, several=True)
    parser.add_argument("--eps", default="10/255", help="how long the shift may be; default %(default)s")
    parser.add_argument("--threat", choices=THREATS, default="linf", help="the norm of the radius")
    how = "along gradients, or by DeepFool's steps to the nearest boundaries; default %(default)s"
    parser.add_argument("--by", choices=("gradient", "deepfool"), default="gradient", help=how)
    parser.add_argument("--passes", type=int, default=10, help="over the images; default %(default)s")
    few = "the period of the shift in pixels: for few images"
    parser.add_argument("--tile", type=int, help=few)
    args = parser.parse_args(list(words))
    check_sides(args)
    check_counts(args, OWN)
    if not 1 <= args.passes <= MOST_PASSES:
        raise ValueError(f"--passes {args.passes}; wanted 1 to {MOST_PASSES}")
    if args.tile is not None and (args.tile < 1 or args.by != "gradient"):
        raise ValueError(f"--tile {args.tile} --by {args.by}; wanted at least 1 pixel, along gradients")
    args.threat = threat_within(THREATS[args.threat], args.eps, f"--eps {args.eps}")
    args.left_out = []
    return args
