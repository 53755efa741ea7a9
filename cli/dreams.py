"""Command: photographs dreamed on, textures and style transfer."""

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.cli.held_interruptions import INTERRUPTED
from fulgurite.cli.image_file import read_one
from fulgurite.cli.image_names import file_name, names_of
from fulgurite.cli.image_options import (
    Listed,
    Parser,
    about_of,
    check_least,
    check_sides,
    like,
    parser_of,
    value,
)
from fulgurite.cli.inputs import PIXELS, feature_of, files_of, layers_in, leave_out, network_of
from fulgurite.cli.outputs import check_folder, title_of, write_picture
from fulgurite.data.crops import uncropped
from fulgurite.probes.attribution.methods import knobs_of
from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.counted import counted
from fulgurite.probes.feature_objectives import energy
from fulgurite.probes.objectives import Objective
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import picture, sheet, write
from fulgurite.probes.synthesis.colours import luminance
from fulgurite.probes.synthesis.dreams import deep_dream, guided_by
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.textures import (
    style_layers_of,
    style_match,
    style_transfer,
    texture,
)
from fulgurite.probes.synthesis.watch import Watch

PROBES = {
    "dream": "DeepDream: photographs in which a layer's activation is larger, from coarse to fine.",
    "texture": "New images of the texture of an example.",
    "style": "Photographs in the style of other images.",
}
FUNCTIONS: dict[str, Callable] = {"dream": deep_dream, "texture": texture, "style": style_transfer}
SIZING = {
    "dream": "the long side that photographs are resized to; unchanged without it",
    "texture": "side of the new images, and the long side that examples are resized to; 224 without it",
    "style": "the long side that photographs and styles are resized to; 256 without it",
}
_INSIDE = ("seeds", "watch", "precise", "layers", "mix", "start", "content_layer", "style_layers", "by")
_WHOLE = ("steps", "tile", "octaves")


def parse(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of a dream, a texture or a style; its own knobs are in `knobs`.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    ending = (
        "\n\nPhotographs keep their proportions. One result is written alone, several as a sheet; --save\n"
        "writes each at its own size, too. Ctrl-C ends it with what it has reached."
    )
    about = f"{PROBES[probe]}\n\n{about_of(FUNCTIONS[probe])}{ending}"
    parser = parser_of(probe, about, side=320, sizing=SIZING[probe])
    {"dream": _dream_options, "texture": _texture_options, "style": _style_options}[probe](parser)
    parser.add_argument("--save", type=Path, help="a folder for the results, each as a PNG at its own size")
    knobs = {name: knob.default for name, knob in knobs_of(FUNCTIONS[probe]).items() if name not in _INSIDE}
    for name, default in knobs.items():
        if isinstance(default, bool):
            parser.add_argument(f"--{name}", action="store_true", help="take only the luminance of the style")
        else:
            shown = "whole images" if default is None else f"{default:.3g}"
            parser.add_argument(f"--{name}", default=default, type=value, help=f"default {shown}")
    args = parser.parse_args(list(words))
    check_sides(args)
    check_folder(args.save, "save")
    args.knobs = {
        name: like(
            1 if default is None and getattr(args, name) is not None else default, getattr(args, name), name
        )
        for name, default in knobs.items()
    }
    check_least(args.knobs, _WHOLE)
    return args


def _dream_options(parser: Parser) -> None:
    parser.set_defaults(size=None)
    parser.add_argument("--layers", help="paths with commas, a dream for each; the network's stages without")
    parser.add_argument("--channel", action=Listed, metavar="LAYER:INDEX", help="this channel instead")
    parser.add_argument("--unit", action=Listed, metavar="LAYER:INDEX[:ROW:COLUMN]", help="or one unit")
    parser.add_argument("--guide", type=Path, help="a second image, whose features appear in the dream")


def _texture_options(parser: Parser) -> None:
    parser.set_defaults(size=224)
    parser.add_argument("--layers", help="paths with commas; the network's stages but the last without it")
    parser.add_argument("--count", type=value, default=1, help="how many images; default %(default)s")
    parser.add_argument("--seed", type=value, default=0, help="of the first; default %(default)s")
    parser.add_argument("--by", choices=("lbfgs", "adam"), default="lbfgs", help="default %(default)s")


def _style_options(parser: Parser) -> None:
    parser.set_defaults(size=256)
    parser.add_argument(
        "--style", type=Path, action=Listed, required=True, help="an image; several with commas"
    )
    parser.add_argument(
        "--mix", type=_weights, help="weights of several styles, such as 2,1; equal without it"
    )
    parser.add_argument("--content_layer", help="a path; the stage in the middle without it")
    parser.add_argument(
        "--layers", help="of the style, paths with commas; all stages but the last without it"
    )
    parser.add_argument("--start", choices=("content", "noise"), default="content", help="where to start")
    parser.add_argument("--by", choices=("lbfgs", "adam"), default="lbfgs", help="default %(default)s")


def _weights(words: str) -> list[float] | str:
    """Numbers with commas, in brackets or not; other words unchanged."""
    found = value(words if words.startswith("[") else f"[{words}]")
    return found if isinstance(found, list) else words


def answer(args: argparse.Namespace) -> None:
    """Write the picture: of one image the result itself, of several a sheet."""
    {"dream": _dream, "texture": _texture, "style": _style}[args.probe](args)


def _dream(args: argparse.Namespace) -> None:
    files = files_of(args.images)
    network, _, _, channels = network_of(args)
    photographs = _photographs(args, files, channels)
    first = next(iter(photographs.values()))
    asked: dict[str, Objective | str] = {
        f"{option} {words}": feature_of(option, words, network)
        for option in ("channel", "unit")
        for words in getattr(args, option) or ()
    }
    if not asked:
        asked = {layer or "logits": layer for layer in layers_in(args, network, _shape(first))}
    if args.guide is not None:
        guide = _photograph(files_of([args.guide])[0], args, channels)
        if wrong := [one for one in asked.values() if not isinstance(one, str)]:
            raise ValueError(f"--guide with {wrong[0]}; wanted --layers, whose features are compared")
        asked = {
            f"{name} guided by {args.guide.stem}": guided_by(network, guide, str(layer))
            for name, layer in asked.items()
        }
    rows = dict[str, list[Tensor]]()
    for (label, image), (name, objective) in product(photographs.items(), asked.items()):
        watch = Watch(f"{label} {name}", interruptible=True)
        dreamed = deep_dream(network, image, objective, watch=watch, **args.knobs)
        rows.setdefault(label, [image]).append(dreamed)
        before, after = (_value(network, objective, own) for own in (image, dreamed))
        what = "energy " if isinstance(objective, str) else ""
        print(f"{label}: {what}{name} {before:.4g} -> {after:.4g}")
        if _interrupted(watch):
            break
    _write(args, rows, ["image", *asked])


def _value(network: nn.Module, objective: Objective | str, image: Float[Tensor, "1 c h w"]) -> float:
    return float(values_of(network, energy(objective) if isinstance(objective, str) else objective, image))


def _texture(args: argparse.Namespace) -> None:
    for name in ("count", "seed"):
        like(1, getattr(args, name), name)
    check_least(vars(args), ["count"])
    files = files_of(args.images)
    network, _, _, channels = network_of(args)
    rows = dict[str, list[Tensor]]()
    for label, example in _photographs(args, files, channels).items():
        layers = layers_in(args, network, _shape(example)) if args.layers else None
        watch = Watch(label, interruptible=True, loss=True)
        made = texture(
            network,
            example,
            (args.size, args.size),
            layers=layers,
            seeds=range(args.seed, args.seed + args.count),
            by=args.by,
            watch=watch,
            **args.knobs,
        )
        objective = style_match(network, example, layers or style_layers_of(network, example))
        losses = ", ".join(f"{-loss:.2g}" for loss in values_of(network, objective, made).tolist())
        print(f"{label}: relative squared distance of Gram matrices {losses}")
        rows[label] = [example, *made[:, None]]
        if _interrupted(watch):
            break
    _write(args, rows, ["example", *(f"seed {args.seed + place}" for place in range(args.count))])


def _style(args: argparse.Namespace) -> None:
    mix = args.mix
    if mix is not None and not (
        isinstance(mix, list) and all(isinstance(one, int | float) and one >= 0 for one in mix)
    ):
        raise ValueError(f"--mix {mix}; wanted a weight for each style, such as 2,1")
    files = files_of(args.images)
    network, _, _, channels = network_of(args)
    styles = [_photograph(file, args, channels) for file in files_of(args.style)]
    if args.content_layer is not None:
        layer_of(network, args.content_layer)
    rows = dict[str, list[Tensor]]()
    for label, image in _photographs(args, files, channels).items():
        layers = layers_in(args, network, _shape(image)) if args.layers else style_layers_of(network, image)
        watch = Watch(label, interruptible=True, loss=True)
        made = style_transfer(
            network,
            image,
            styles,
            content_layer=args.content_layer,
            style_layers=layers,
            mix=mix,
            start=args.start,
            by=args.by,
            watch=watch,
            **args.knobs,
        )
        rows[label] = [image, made]
        compared = [image, made, styles[0]]
        if args.knobs["keep_colours"]:  # of the luminance only, as nothing else was transferred
            compared = [luminance(own).expand_as(own) for own in compared]
        *both, style = compared
        match = style_match(network, style, layers)
        before, after = (-float(values_of(network, match, own)) for own in both)
        print(f"{label}: relative squared distance of Gram matrices {before:.2g} -> {after:.2g}")
        if _interrupted(watch):
            break
    _write(args, rows, ["image", "in the style"])


def _photographs(
    args: argparse.Namespace, files: Sequence[Path], channels: int
) -> dict[str, Float[Tensor, "1 c _ _"]]:
    """The images that can be read, each in its own proportions, by label.

    A file named on the command line must be readable; one in a folder is left out with a note.
    """
    read = dict[Path, Tensor]()
    for file in files:
        try:
            read[file] = _photograph(file, args, channels)
        except ValueError as error:
            leave_out(args, file, error)
    if not read:
        raise ValueError("none of the images can be read")
    return dict(zip(names_of(list(read)), read.values(), strict=True))


def _photograph(file: Path, args: argparse.Namespace, channels: int) -> Float[Tensor, "1 c h w"]:
    return uncropped(args.size)(read_one(file, channels, args))[None].to(args.device)


def _shape(image: Float[Tensor, "1 c h w"]) -> tuple[int, int, int]:
    return image.shape[1], image.shape[2], image.shape[3]


def _interrupted(watch: Watch) -> bool:
    if watch.interrupted:
        print(INTERRUPTED, file=sys.stderr)
    return watch.interrupted


def _write(args: argparse.Namespace, rows: dict[str, list[Tensor]], columns: Sequence[str]) -> None:
    """One result as it is; several as a sheet, a row for each photograph, the last shorter if interrupted."""
    if args.save is not None:
        args.save.mkdir(parents=True, exist_ok=True)
        for label, tiles in rows.items():
            for column, made in zip(columns[1:], tiles[1:], strict=False):
                write(picture(made[0]), args.save / f"{file_name(f'{label}_{column}')}.png")
    columns = columns[: max(map(len, rows.values()))]  # those that were finished
    if len(rows) == 1 and len(columns) == 2:
        (tiles,) = rows.values()
        write_picture(picture(tiles[1][0]), args.out, columns[1])
        return
    if len(rows) * len(columns) * args.side**2 > PIXELS:
        raise ValueError(
            f"{len(rows)} x {len(columns)} tiles of {args.side} px; wanted fewer, or a smaller --side"
        )
    drawn = {label: [sized(picture(one[0]), args.side) for one in tiles] for label, tiles in rows.items()}
    write_picture(
        sheet(drawn, columns=list(columns)), args.out, counted(len(rows), "row"), title=title_of(args)
    )
