"""Command: shortcuts that a network may use on your images, and the slices that it misclassifies."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.cli.image_file import read_one
from fulgurite.cli.image_options import check_least, check_sides, like, parser_of, value
from fulgurite.cli.inputs import (
    AT_ONCE,
    check_fits,
    class_of,
    classes_of,
    cut_of,
    files_of,
    leave_out,
    network_of,
)
from fulgurite.cli.outputs import check_picture, title_of, write_picture
from fulgurite.data.image_files import printable
from fulgurite.probes.attribution.render_maps import OVER, sized
from fulgurite.probes.counted import counted
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.render import RGB, captioned, noted, overlaid, picture, sheet, stacked
from fulgurite.probes.representation.class_components import (
    class_components,
    class_weights,
    codes_and_logits,
    component_maps,
)
from fulgurite.probes.representation.error_slices import ErrorSlice, error_slices
from fulgurite.probes.style import drawn_in

ABOUT = """The components of each class's score over its images (class-wise PCA of penultimate features,
Neuhaus et al. 2023): the images in which each is strongest, its share of the score's variance, and below them
where it comes from. Where these show something else than the class, it is a shortcut. Then error slices:
clusters of similar images of a class that are misclassified far more often than the others.

FOLDER holds a folder for each class, called by the class's name or number."""
LEAST = 3  # images of a class
LEGEND = (
    "left: a component's share of the variance of its class's score",
    "below the images: what it adds to their score, compared with the class's mean",
    "below that: where in the image this comes from",
)


class _Read(NamedTuple):
    """Features, logits and labels of all images, which are not kept."""

    files: list[Path]
    labels: Int[Tensor, "n"]
    codes: Float[Tensor, "n d"]
    logits: Float[Tensor, "n k"]


def run(verb: str, words: Sequence[str]) -> int:
    """Write the picture, and print a line for each component and slice.

    Raises:
        ValueError: an unknown option, or images whose folders name no class.
    """
    args = _parse(verb, words)
    check_picture(args)
    files = files_of(args.images)
    network, names, size, channels = network_of(args)
    labels = labels_of(files, names)
    chosen = classes_of(args.target or (), names, option="class")
    counts = torch.bincount(torch.tensor(labels), minlength=len(names)).tolist()
    chosen = chosen or [k for k, count in enumerate(counts) if count >= LEAST][: args.most_classes]
    if wrong := [names[k] for k in chosen if counts[k] < LEAST]:
        raise ValueError(
            f"{counted(counts[names.index(wrong[0])], 'image')} of {wrong[0]}; wanted at least {LEAST}"
        )
    if not chosen:
        raise ValueError(f"no class has {LEAST} images; wanted at least as many to find its components")
    rows = 2 * args.components * len(chosen) + args.slices
    check_fits(args, AT_ONCE, size, rows=rows, columns=args.strongest + 1)
    first = _image(args, files[0], size, channels).to(args.device)[None]
    classifier, weights = class_weights(network, first)
    args.left_out = []
    found = _read(args, network, files, labels, size, channels, classifier)
    shape = size, channels
    with drawn_in(args.theme):
        return _draw(args, network, names, found, chosen, weights, classifier, shape)


def _draw(
    args: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    found: _Read,
    chosen: Sequence[int],
    weights: Tensor,
    classifier: str,
    shape: tuple[int, int],
) -> int:
    parts = [_components(args, network, names, found, k, weights[k].cpu(), classifier, shape) for k in chosen]
    slices = error_slices(found.codes, found.labels, found.logits)[: args.slices]
    if slices:
        parts.append(_slices(args, names, found, slices, shape))
    else:
        print(
            "no error slices: in no group of similar images are errors much more frequent than in their class"
        )
    paper = noted(stacked(parts), *LEGEND, OVER)
    counts = {"class": chosen, "image": found.files, "error slice": slices}
    summary = ", ".join(counted(len(own), what) for what, own in counts.items())
    write_picture(paper, args.out, summary, title=title_of(args, "components of class scores"))
    return int(bool(args.left_out))


def _parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(verb, ABOUT, side=96)
    about = "by name or number; several with commas"
    parser.add_argument("--class", action="append", dest="target", help=about)
    limits = {
        "components": (2, "shown of each class"),
        "strongest": (8, "images shown of each"),
        "slices": (5, "error slices, at most"),
        "most_classes": (6, "classes, where none is named"),
    }
    for name, (default, meaning) in limits.items():
        parser.add_argument(f"--{name}", type=value, default=default, help=f"{meaning}; default %(default)s")
    args = parser.parse_args(list(words))
    check_sides(args)
    for name, (default, _) in limits.items():
        like(default, getattr(args, name), name)
    check_least(vars(args), list(limits))
    return args


def labels_of(files: Sequence[Path], names: Sequence[str]) -> list[int]:
    """The class of each image, by its folder's name; by their order, where there are as many as classes."""
    parents = [file.parent for file in files]
    own = [(one if one.name not in ("", "..") else one.resolve()).name for one in parents]
    folders = sorted(set(own))
    known = {name.lower() for name in names}
    numbered = all(name.isdecimal() for name in names) and len(folders) == len(names)
    if numbered and not all(name.lower() in known for name in folders):
        return [folders.index(name) for name in own]
    found = {}
    for name in folders:
        try:
            found[name] = class_of(name, names)
        except ValueError as error:
            raise ValueError(
                f"folder {printable(name)}: {error}; wanted a folder for each class, or its name by --classes"
            ) from None
    return [found[name] for name in own]


def _read(
    args: argparse.Namespace,
    network: nn.Module,
    files: Sequence[Path],
    labels: Sequence[int],
    size: int,
    channels: int,
    classifier: str,
) -> _Read:
    kept, codes, logits = list[int](), list[Tensor](), list[Tensor]()
    waiting: dict[int, Tensor] = {}

    def look() -> None:
        own = codes_and_logits(network, torch.stack(list(waiting.values())).to(args.device), classifier)
        codes.append(own[0].cpu())
        logits.append(own[1].cpu())
        kept.extend(waiting)
        waiting.clear()

    for place, file in enumerate(progress_bar(files, "shortcuts", unit="image")):
        try:
            waiting[place] = _image(args, file, size, channels)
        except ValueError as error:
            leave_out(args, file, error)
        if len(waiting) == AT_ONCE:
            look()
    if waiting:
        look()
    if not kept:
        raise ValueError("none of the images can be read")
    own = torch.tensor([labels[place] for place in kept])
    return _Read([files[place] for place in kept], own, torch.cat(codes), torch.cat(logits))


def _components(
    args: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    found: _Read,
    label: int,
    weights: Float[Tensor, "d"],
    classifier: str,
    shape: tuple[int, int],
) -> RGB:
    """The strongest images of each component of a class, and where it is in them."""
    rows = (found.labels == label).nonzero()[:, 0]
    components = class_components(found.codes[rows], weights, count=args.components)
    scores = components.scores(found.codes[rows])
    tiles: dict[str, Sequence[RGB]] = {}
    for number, share in enumerate(components.shares.tolist()):
        order = scores[:, number].argsort(descending=True)[: args.strongest]
        files = [found.files[place] for place in rows[order].tolist()]
        print(
            f"{names[label]}: component {number + 1}, {share:.0%} of the score's variance; strongest in "
            f"{', '.join(printable(file.name) for file in files[:3])}"
        )
        images = torch.stack([_image(args, file, *shape) for file in files]).to(args.device)
        maps = component_maps(network, images, classifier, components, number).cpu()
        tops = [f"{score:+.1f}" for score in scores[order, number].tolist()]
        pictures = [picture(image) for image in images.cpu()]
        tiles[f"{names[label]}, component {number + 1}: {share:.0%}"] = [
            captioned(sized(one, args.side), top) for one, top in zip(pictures, tops, strict=True)
        ]
        tiles[" " * (number + 1)] = [
            sized(overlaid(one, own[0]), args.side) for one, own in zip(pictures, maps, strict=True)
        ]
    return sheet(tiles, columns=["strongest", *[""] * (args.strongest - 1)])


def _slices(
    args: argparse.Namespace,
    names: Sequence[str],
    found: _Read,
    slices: Sequence[ErrorSlice],
    shape: tuple[int, int],
) -> RGB:
    """The most typical images of each slice, with their predictions."""
    tiles = {}
    for own in slices:
        shown = own.members[: args.strongest].tolist()
        what = f"{own.errors} of {len(own.members)} wrong"
        examples = ", ".join(printable(found.files[place].name) for place in shown[:3])
        whole = f"of the whole class {own.class_rate:.0%}"
        print(
            f"slice of {names[own.label]}: {what}, mostly taken for {names[own.answer]}; {whole}; "
            f"such as {examples}"
        )
        tiles[f"{names[own.label]}: {what}; {whole}"] = [
            captioned(
                sized(picture(_image(args, found.files[place], *shape)), args.side),
                f"pred {names[int(found.logits[place].argmax())]}",
            )
            for place in shown
        ]
    return sheet(tiles, columns=["error slices", *[""] * (args.strongest - 1)])


def _image(args: argparse.Namespace, file: Path, size: int, channels: int) -> Float[Tensor, "c h w"]:
    return cut_of(args, size)(read_one(file, channels, args))
