"""Command: adversarial attacks on image files."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli.image_options import check_sides, like, parser_of, value
from fulgurite.cli.inputs import check_fits, class_of, files_of, images_of, in_parts, network_of
from fulgurite.cli.outputs import title_of, write_picture
from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.losses import LOSSES, misclassified
from fulgurite.probes.attacks.render_attack import caption, row, within
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import THREATS, threat_within
from fulgurite.probes.attribution.methods import knobs_of
from fulgurite.probes.predict import predict
from fulgurite.probes.render import RGB, noted, sheet

PROBES = {
    "attack": "A small change of an image for another prediction: image, difference, 10 x difference, sum."
}
ABOUT = """

Prints for each image whether the attack succeeded: with --target, if the prediction is the target; without
it, if the prediction has changed, or differs from --label."""
# gradient attacks continue after success: the picture then shows a confident prediction
ATTACKS: dict[str, Callable[..., Any]] = {
    "pgd": pgd,
    "fgsm": fgsm,
    "apgd": partial(apgd, drop=False),
    "fab": fab,
    "square": square,
}
NO_KNOBS = ("drop", "size")  # the side of Square's squares; --size is that of the images


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of an attack; its own knobs are in `knobs`.

    Raises:
        ValueError: an unknown option, a value of the wrong kind, or a knob that this attack does not have.
    """
    parser = parser_of(probe, PROBES[probe] + ABOUT, side=224)
    parser.add_argument("--eps", required=True, help="how far images may be moved: 2/255, or a number")
    parser.add_argument("--threat", choices=THREATS, default="linf", help="the norm of the radius")
    parser.add_argument("--target", help="the class, by name or number, that the network is to predict")
    parser.add_argument("--label", help="the class to move away from; without it, the predicted one")
    parser.add_argument("--attack", choices=ATTACKS, help="pgd without it, or under l1, apgd")
    parser.add_argument("--loss", choices=LOSSES, help="the loss that a gradient attack maximises")
    parser.add_argument("--times", type=float, default=10.0, help="the factor of the second difference")
    for name in dict.fromkeys(name for attack in ATTACKS.values() for name in _knobs(attack)):
        own = [short for short, attack in ATTACKS.items() if name in _knobs(attack)]
        parser.add_argument(f"--{name}", type=value, help=f"of {', '.join(own)}")
    args = parser.parse_args(list(words))
    check_sides(args)
    if not 1 < args.times < float("inf"):
        raise ValueError(f"--times {args.times:g}; wanted a factor above 1")
    args.attack = args.attack or ("apgd" if args.threat == "l1" else "pgd")
    # an attack of radius 0 fails, and the output says so
    args.threat = threat_within(THREATS[args.threat], args.eps, f"--eps {args.eps}", still=True)
    args.knobs = _chosen(args)
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture, a row for each image, and print the results."""
    files = files_of(args.images)
    network, names, size, channels = network_of(args)
    target, label = (
        None if word is None else class_of(word, names, option=option)
        for option, word in (("target", args.target), ("label", args.label))
    )
    if target is not None and target == label:
        raise ValueError(
            f"--target and --label are both {names[target]!r}; the target is to be another class"
        )
    check_fits(args, len(files), size, rows=len(files), columns=4)
    names_of_files, images = images_of(files, args, size, channels)
    rows: dict[str, list[RGB]] = {}
    succeeded_count = 0
    for start, part in in_parts(images, args.device):
        for place, (tiles, outcome, fooled) in enumerate(_rows(args, network, names, part, target, label)):
            rows[names_of_files[start + place]] = tiles
            succeeded_count += fooled
            print(f"{names_of_files[start + place]}: {outcome}")
    columns = ["image", "difference", f"{args.times:g} x difference", "adversarial image"]
    pixels = noted(
        sheet(rows, columns=columns),
        f"{args.attack} within {within(args.threat)}; differences: mid-grey is 0",
    )
    write_picture(pixels, args.out, f"{succeeded_count} of {len(rows)} rows succeeded", title=title_of(args))


def _knobs(attack: Callable[..., Any]) -> dict[str, Any]:
    """The options of one attack only, and their defaults."""
    known = {name: knob.default for name, knob in knobs_of(attack).items() if name not in NO_KNOBS}
    # options of the attack itself, and their types
    return known | {name: kind for name, kind in (("step_size", 1.0), ("target_classes", 9)) if name in known}


def _chosen(args: argparse.Namespace) -> dict[str, Any]:
    own = _knobs(ATTACKS[args.attack])
    chosen = {} if args.loss is None else {"loss": args.loss}
    for name in dict.fromkeys(name for attack in ATTACKS.values() for name in _knobs(attack)):
        if (given := getattr(args, name)) is None:
            continue
        if name not in own:
            raise ValueError(
                f"{args.attack} has no --{name}; it has {', '.join(f'--{knob}' for knob in own)}"
            )
        chosen[name] = like(own[name], given, name, knobs_of(ATTACKS[args.attack])[name].annotation)
    return chosen


def _rows(
    args: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    images: Float[Tensor, "n c h w"],
    target: int | None,
    label: int | None,
) -> Iterator[tuple[list[RGB], str, bool]]:
    """For each image: its tiles, the result in words, and whether the attack succeeded."""
    before = predict(network, images)
    labels = before.argmax(1) if label is None else before.argmax(1).fill_(label)
    targets = None if target is None else labels.clone().fill_(target)
    how = args.knobs if target is None else {**args.knobs, "target": target}
    # an image that is already classified as the target needs no attack
    moved, others = images.clone(), labels.ne(-1 if target is None else target)
    if others.any():
        moved[others] = ATTACKS[args.attack](network, images[others], labels[others], args.threat, **how)
    distances = args.threat.distance(moved, images)
    # the adversarial image as stored in a file
    after, saved = predict(network, torch.cat([moved, (moved * 255).round() / 255])).chunk(2)
    was, fooled, still = (misclassified(logits, labels, targets) for logits in (before, after, saved))
    for place, image in enumerate(images):
        answers = [_answer(logits[place], names) for logits in (before, after, saved)]
        first, second, third = (f"{name}: {probability:.0%}" for name, probability in answers)
        outcome = "so it was before" if was[place] else "succeeded" if fooled[place] else "failed"
        lost = f", but rounded to 8 bits it is {third}" if fooled[place] and not still[place] else ""
        captions = (caption(*answer, side=args.side) for answer in answers[:2])
        times = {1.0: f"{distances[place]:.3g} in {type(args.threat).__name__}", args.times: ""}
        tiles = row(image, moved[place], *captions, times=times, side=args.side)
        yield tiles, f"{first} -> {second}, {outcome}{lost}", bool(fooled[place] and not was[place])


def _answer(logits: Float[Tensor, "k"], names: Sequence[str]) -> tuple[str, float]:
    probability, answer = logits.softmax(0).max(0)
    return names[int(answer)], float(probability)
