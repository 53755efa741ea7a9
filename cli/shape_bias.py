"""Command: shape bias of a network on a folder of cue-conflict images, and making such images."""

import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fulgurite.cli.image_file import read_one
from fulgurite.cli.image_options import SQUARE, Parser, add_device, add_network, check_sides, parser_of
from fulgurite.cli.inputs import batches_of, files_of, network_of
from fulgurite.cli.outputs import check_picture, title_of, write_picture
from fulgurite.data.crops import from_the_middle
from fulgurite.data.image_files import images_below, printable
from fulgurite.probes.counted import counted
from fulgurite.probes.plots import category_plot
from fulgurite.probes.predict import predict
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.render import picture, write
from fulgurite.probes.robustness.shape_bias import SIXTEEN, category_probabilities, shape_answers
from fulgurite.probes.style import drawn_in
from fulgurite.probes.synthesis.textures import style_transfer

ABOUT = """The shape bias of a network: how often it decides by the shape where shape and texture disagree.

Images are named SHAPE-TEXTURE.png, such as cat1-elephant2.png, as in Geirhos et al. 2019; numbers are
ignored. A network of ImageNet's 1000 classes predicts their 16 categories, each with the mean probability of
its members; any other network by its own classes' names (--classes). Images are cropped as for evaluation:
the short side is resized to 256/224 of --size, and the centre is cropped. Printed are the bias, its 95 %
interval by bootstrap, and the hit rate: the share of predictions by either. The picture shows each category's
bias."""
MAKE = """Images whose shape is of one folder's class and whose texture of another's, by style transfer.

Both folders have a folder for each class. Each shape gets the textures of --each images of other classes in
turn, and is written to --out as SHAPE/SHAPE1-TEXTURE2.png, which `fulgurite shape_bias` reads."""


def run(verb: str, words: Sequence[str]) -> int:
    """Measure, or make the images.

    Raises:
        ValueError: an unknown option, network or file, or names of images that name no classes.
    """
    return {"shape_bias": _measure, "cue_conflict": _make}[verb](verb, words)


def _measure(verb: str, words: Sequence[str]) -> int:
    parser = parser_of(verb, ABOUT, side=96)
    args = parser.parse_args(list(words))
    check_sides(args)
    check_picture(args)
    args.left_out = []
    files = files_of(args.images)
    network, names, size, channels = network_of(args)
    sixteen = args.classes is None and len(names) == 1000
    known = list(SIXTEEN) if sixteen else list(names)
    named = {file: _cues(file, known) for file in files}
    used = [file for file, (shape, texture) in named.items() if shape != texture]
    if left := len(files) - len(used):
        print(
            f"note: left out: {counted(left, 'image')} whose shape and texture are of one class",
            file=sys.stderr,
        )
    if not used:
        raise ValueError("no image has a shape of one class and the texture of another; wanted cue conflicts")
    read: list[Path] = []
    parts = [
        predict(network, images.to(args.device)).cpu()
        for images in batches_of(used, args, size, channels, read=read)
    ]
    if not read:
        raise ValueError("none of the images can be read")
    logits = torch.cat(parts)
    scores = category_probabilities(logits) if sixteen else logits
    shapes, textures = torch.tensor([named[file] for file in read]).T.unbind()
    found = shape_answers(scores, shapes, textures)
    low, high = found.interval()
    bias = f"{found.bias:.1%} ({low:.1%} to {high:.1%})" if found.hit_rate else "undefined"
    print(
        f"shape bias {bias}, hit rate {found.hit_rate:.1%}, "
        f"{counted(len(read), 'image')}; {int(found.by_shape.sum())} by shape, "
        f"{int(found.by_texture.sum())} by texture"
    )
    if not found.hit_rate:
        print("note: no prediction was by shape or by texture, so there is no bias", file=sys.stderr)
    kinds = "16 categories" if sixteen else counted(len(known), "class")
    print(f"short side to {size * 256 // 224} px, middle square of {size} px, {kinds}")
    rows = [place for place in range(len(known)) if bool((shapes == place).any())]
    biases = []
    for place in rows:
        own = shapes == place
        right, hits = int(found.by_shape[own].sum()), int((found.by_shape | found.by_texture)[own].sum())
        biases.append(right / hits if hits else float("nan"))
        share = f"{biases[-1]:.1%}" if hits else "no hits"
        print(
            f"{known[place]:12} {share:>8}  {right} by shape, {hits - right} by texture, of {int(own.sum())}"
        )
    title = title_of(args, "shape bias of each category")
    with drawn_in(args.theme):
        plot = category_plot(
            [known[place] for place in rows], {"shape bias": biases}, ylabel="share by shape", ymax=1.0
        )
        write_picture(plot, args.out, f"{len(rows)} categories", title=title)
    return int(bool(args.left_out))


def _cues(file: Path, known: Sequence[str]) -> tuple[int, int]:
    """The numbers of the classes that a file's name states for its shape and its texture."""
    words = file.stem.split("-")
    for dash in range(1, len(words)):  # names of classes may have some, too
        parts = ("-".join(words[:dash]), "-".join(words[dash:]))
        shape, texture = (_class_of(part, known) for part in parts)
        if shape is not None and texture is not None:
            return shape, texture
    raise ValueError(
        f"{printable(file)}: its name states no shape and texture; wanted SHAPE-TEXTURE, such as "
        f"{known[0]}1-{known[-1]}2.png"
    )


def _class_of(word: str, known: Sequence[str]) -> int | None:
    """The class of this name, without a number at its end; the longest such name."""
    numbered = re.compile(r"(_?\d+)?")
    fitting = [
        place
        for place, name in enumerate(known)
        if word.startswith(name) and numbered.fullmatch(word, len(name))
    ]
    return max(fitting, key=lambda place: len(known[place]), default=None)


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if name[-1].isdigit() else f"{name}{number}"


def _make(verb: str, words: Sequence[str]) -> int:
    parser = Parser(verb, MAKE)
    parser.add_argument("--shapes", type=Path, required=True, help="a folder of folders of photographs")
    parser.add_argument("--textures", type=Path, required=True, help="a folder of folders of textures")
    parser.add_argument("--each", type=int, default=1, help="textures for each shape; default %(default)s")
    parser.add_argument("--steps", type=int, default=200, help="of the optimiser; default %(default)s")
    add_network(parser)
    parser.add_argument("--size", type=int, help=SQUARE)
    parser.add_argument("--out", type=Path, default=Path("cue_conflict"), help="a folder; %(default)s")
    add_device(parser)
    parser.set_defaults(classes=None, side=None)
    args = parser.parse_args(list(words))
    check_sides(args)
    if min(args.each, args.steps) < 1:
        raise ValueError(f"--each {args.each} --steps {args.steps}; wanted at least 1 of each")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {printable(args.out)} is a file; wanted a folder")
    shapes, textures = _by_class(args.shapes), _by_class(args.textures)
    if len({*shapes} | {*textures}) < 2:
        raise ValueError("one class of shapes and textures; wanted at least two")
    others = {shape: {name: own for name, own in textures.items() if name != shape} for shape in shapes}
    most = min(sum(map(len, own.values())) for own in others.values() if own)
    if args.each > most:
        raise ValueError(
            f"--each {args.each}; some shapes have only {counted(most, 'texture')} of other classes; "
            "wanted no more than that"
        )
    network, _, size, channels = network_of(args)
    cut = from_the_middle(size, margin=1)
    turns, todo = dict.fromkeys(textures, 0), []
    for shape, files in shapes.items():
        names = list(others[shape])
        for number, file in enumerate(files):
            left = {name: len(own) for name, own in others[shape].items()}  # no texture twice for one shape
            places = itertools.cycle(
                names[(number * args.each + one) % len(names)] for one in range(len(names))
            )
            for texture in itertools.islice((name for name in places if left[name]), args.each):
                left[texture] -= 1
                which = turns[texture] % len(textures[texture])
                turns[texture] += 1
                name = f"{_numbered(shape, number + 1)}-{_numbered(texture, which + 1)}.png"
                todo.append((file, textures[texture][which], args.out / shape / name))
    left_out = 0
    for file, source, out in progress_bar(todo, "cue conflict", unit="image"):
        try:
            content, style = (
                cut(read_one(own, channels, args))[None].to(args.device) for own in (file, source)
            )
        except ValueError as error:
            left_out += 1
            print(f"note: left out: {error}", file=sys.stderr)
            continue
        made = style_transfer(network, content, [style], steps=args.steps)
        out.parent.mkdir(parents=True, exist_ok=True)
        write(picture(made[0]), out)
    if left_out == len(todo):
        raise ValueError("none of the images can be read")
    print(f"{printable(args.out)}: {counted(len(todo) - left_out, 'image')}")
    return int(left_out > 0)


def _by_class(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {printable(folder)}; wanted one with a folder for each class")
    found = {one.name: images_below(one) for one in sorted(folder.iterdir()) if one.is_dir()}
    found = {name: files for name, files in found.items() if files}
    if not found:
        raise ValueError(f"no folder with images in {printable(folder)}; wanted a folder for each class")
    return found
