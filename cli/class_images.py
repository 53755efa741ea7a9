"""Command: class images of a network, by any method, with the probabilities that it and a second one give."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.cli import several_networks
from fulgurite.cli.held_interruptions import INTERRUPTED
from fulgurite.cli.image_options import Listed, check_least, check_sides, like, parser_of, value
from fulgurite.cli.inputs import check_fits, classes_of, files_of, network_of
from fulgurite.cli.run_images import background_of, images_or_own
from fulgurite.probes.attribution.methods import knobs_of
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.counted import counted
from fulgurite.probes.objectives import pooled
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, captioned, grid, noted, picture, sheet
from fulgurite.probes.synthesis.canvas import resized
from fulgurite.probes.synthesis.class_image_methods import METHODS, YOSINSKI
from fulgurite.probes.synthesis.watch import Watch

PROBES = {"class_images": "Images that maximise the score of a class, by six methods of the literature."}
DEFAULT_CLASSES = 10
OWN = ("weights", "score_layer")
"""Options that each of several networks has separately."""
ABOUT = """

Methods: fourier (random transforms of a Fourier canvas), simonyan, mahendran, yosinski, maco, robust.
Images are needed by maco, for their spectrum, and by robust, which starts from those that the network puts
into the class; other methods take the background's colour from them. Of a run they are some of its own test
images, unless files are named; of another network none, and its background is mid-grey.
Ctrl-C ends it with what was reached.""" + several_networks.ABOUT.format("--weights and --score_layer")


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of class images.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    parser = parser_of(probe, PROBES[probe] + ABOUT, side=224, needs_images=False, several=True)
    parser.add_argument("--target", action="append", help="a class, by name or number; several with commas")
    parser.add_argument("--method", choices=METHODS, default="fourier", help="default %(default)s")
    parser.add_argument("--preset", choices=YOSINSKI, help="of yosinski; default blur")
    parser.add_argument("--score_layer", action=Listed, help="where scores are read, if not at the output")
    parser.add_argument("--seeds", type=value, default=1, help="images of each class; default %(default)s")
    parser.add_argument("--seed", type=value, default=0, help="of the first; default %(default)s")
    parser.add_argument("--steps", type=value, help="of the optimiser; the method's own without it")
    parser.add_argument("--radius", type=value, help="of robust, as a root mean square over pixels")
    parser.add_argument(
        "--judge",
        help="a second network for the same classes, which is shown the images at its own size",
    )
    parser.add_argument("--judge_weights", type=Path, help="its weights; published ones without it")
    args = parser.parse_args(list(words))
    check_sides(args)
    several_networks.check_counts(args, OWN)
    for name, default in {"seeds": 1, "seed": 0, "steps": 1, "radius": 0.25}.items():
        if getattr(args, name) is not None:
            like(default, getattr(args, name), name)
    check_least(vars(args), ("seeds", "steps"))
    if args.radius is not None and (args.method != "robust" or args.radius <= 0):
        raise ValueError(f"--radius {args.radius}; wanted a number above 0, and --method robust")
    if args.preset is not None and args.method != "yosinski":
        raise ValueError(f"--preset {args.preset}; wanted --method yosinski with it")
    if args.judge_weights is not None and args.judge is None:
        raise ValueError("--judge_weights without --judge; wanted the network whose weights they are")
    return args


def answer(args: argparse.Namespace) -> None:
    """Write the picture: a row for each class and an image for each seed; of one seed, all in a square."""
    several_networks.answer(args, OWN, _drawn)


def _drawn(args: argparse.Namespace) -> tuple[RGB, str]:
    layer = args.score_layer or ""
    files = files_of(args.images)
    network, names, size, channels = network_of(args)
    layer_of(network, layer)
    asked = args.target or [str(number) for number in range(min(DEFAULT_CLASSES, len(names)))]
    targets = classes_of(asked, names)
    count = len(targets) * args.seeds
    check_fits(args, len(files) + count, size, rows=len(targets), columns=args.seeds)
    judge = None if args.judge is None else _judge(args, len(names))
    _, images = images_or_own(args, files, size, channels)
    classes = torch.tensor(targets, device=args.device).repeat_interleave(args.seeds)
    watch = Watch("class images", interruptible=True)
    made = METHODS[args.method](
        network,
        classes,
        (channels, size, size),
        seeds=[args.seed + place for place in range(args.seeds)] * len(targets),
        layer=layer,
        watch=watch,
        **_options(args, network, names, targets, images),
    )
    if watch.interrupted:
        print(INTERRUPTED, file=sys.stderr)
    lines = [_probabilities(predict(network, made), classes)]
    if judge is not None:
        second, its_size = judge
        shown = resized(made, (its_size, its_size)).clamp(0, 1)
        lines.append(
            [f"{args.judge}: {chance}" for chance in _probabilities(predict(second, shown), classes)]
        )
    rows = dict[str, list[RGB]]()
    alone = args.seeds == 1  # names are below the tiles then
    for place, target in enumerate(targets):
        own = range(place * args.seeds, (place + 1) * args.seeds)
        name = names[target] if list(names).count(names[target]) == 1 else f"{names[target]} ({target})"
        head = [name] if alone else []
        rows[name] = [
            captioned(sized(picture(made[one]), args.side), *head, *(line[one] for line in lines))
            for one in own
        ]
        print(f"{name}: " + ", ".join(" / ".join(line[one] for line in lines) for one in own))
    summary = counted(len(rows), "class")
    columns = [f"seed {args.seed + place}" for place in range(args.seeds)]
    pixels = grid([tile for (tile,) in rows.values()], gap=6) if alone else sheet(rows, columns=columns)
    shown_to = "" if judge is None else f", and by {args.judge} at {judge[1]} px"
    return noted(pixels, f"by {args.method}; %: probability of the class by this network{shown_to}"), summary


def _options(
    args: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    targets: Sequence[int],
    images: Float[Tensor, "n c h w"],
) -> dict[str, object]:
    """The images and labels that the chosen method needs.

    Raises:
        ValueError: it needs images, and there are none, or none that is predicted as a class asked for.
    """
    wanted = knobs_of(METHODS[args.method])
    options: dict[str, object] = {"background": background_of(images)}
    if "images" in wanted:
        if not len(images):
            raise ValueError(f"--method {args.method} needs images; name files or folders of them")
        options["images"] = images
    if "labels" in wanted:
        options["labels"] = labels = _top(network, images)
        found = set(labels.tolist())
        if lacking := [names[target] for target in targets if target not in found]:
            given = ", ".join(names[int(one)] for one in sorted(found))
            raise ValueError(
                f"--method {args.method} starts from images that are predicted as the class, and none is as "
                f"{', '.join(lacking)}; those given are as {given}"
            )
    for name in ("preset", "radius", "steps"):
        if name in wanted and getattr(args, name) is not None:
            options[name] = getattr(args, name)
    return options


def _top(network: nn.Module, images: Float[Tensor, "n c h w"]) -> Int[Tensor, "n"]:
    return pooled(predict(network, images)).argmax(1)


def _judge(args: argparse.Namespace, classes: int) -> tuple[nn.Module, int]:
    """The second network, and the side of the images that it is shown.

    Raises:
        ValueError: it cannot be built, or has other classes.
    """
    own = {**vars(args), "network": args.judge, "weights": args.judge_weights, "size": None, "classes": None}
    try:
        network, names, size, _ = network_of(argparse.Namespace(**own))
    except ValueError as error:  # which names the first network's options
        message = str(error).replace("--weights", "--judge_weights").replace("--network", "--judge")
        raise ValueError(f"--judge {args.judge}: {message}") from error
    if len(names) != classes:
        raise ValueError(
            f"--judge {args.judge}: it has {counted(len(names), 'class')}, and {args.network} has {classes}"
        )
    return network, size


def _probabilities(logits: Float[Tensor, "n k"], classes: Int[Tensor, "n"]) -> list[str]:
    chosen = logits.softmax(1).gather(1, classes[:, None])[:, 0]
    return [f"{chance:.0%}" for chance in chosen.tolist()]
