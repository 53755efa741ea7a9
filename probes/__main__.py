"""Looks into a network from the shell: which parts of an image speak for an answer.

python -m fulgurite.probes PROBE IMAGE... --network torchvision/resnet18 --target tabby --out out.png
"""

import argparse
import inspect
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from fulgurite.data.framing import from_the_middle, upright
from fulgurite.models.networks import build, check_takes, class_names, input_size, told_by
from fulgurite.probes.attribution.methods import METHODS, attribute, knobs_of, method_of
from fulgurite.probes.attribution.pictured import comparison, row, sized
from fulgurite.probes.attribution.segment import cut_out, grabcut
from fulgurite.probes.objectives import Objective, channel, class_score, log_probability, probability, unit
from fulgurite.probes.predict import predict
from fulgurite.probes.record import layer_of, nearest
from fulgurite.probes.render import RGB, captioned, picture, write

USUAL = [
    *("input_x_gradient", "smoothgrad", "integrated_gradients", "deconvnet", "guided_backprop"),
    *("grad_cam", "guided_grad_cam", "layer_cam", "occlusion", "lime"),
]
SHEETS = {
    "compare": "Several methods side by side: a sheet of images x methods.",
    "segment": "The object cut out by GrabCut, seeded from the saliency: mask and cut-out.",
}
ABOUT = "\n\nTargets are answered from the same passes; the class predicted, if none is named."
SCORES = {"score": class_score, "probability": probability, "log_probability": log_probability}
Question = tuple[int | None, Objective]  # the class asked about, if it is one
FILES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
AT_ONCE = 8  # images


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; a mistake in what was asked is one line and exit status 2."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
        elif words[0] not in (*SHEETS, *METHODS):
            raise ValueError(f"no probe {words[0]!r}; {nearest(words[0], [*SHEETS, *METHODS])}")
        else:
            with warnings.catch_warnings():
                warnings.showwarning = lambda said, *_, **__: print(f"note: {said}", file=sys.stderr)
                _look(_asked(words[0], words[1:]))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _help() -> str:
    lines = SHEETS | {name: inspect.getdoc(method) or "" for name, method in METHODS.items()}
    return (
        f"{__doc__}\nprobes:\n"
        + "\n".join(f"  {name:21}{line.splitlines()[0]}" for name, line in lines.items())
        + "\n\npython -m fulgurite.probes PROBE --help says what can be chosen."
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; {self.prog} --help says what can be chosen")


def _asked(probe: str, words: Sequence[str]) -> argparse.Namespace:
    """What the words ask for; the probe's own knobs in `knobs`.

    Raises:
        ValueError: an unknown option, or a value of the wrong kind.
    """
    knobs = _knobs(probe)
    about = SHEETS.get(probe) or inspect.getdoc(method_of(probe)) or ""
    parser = _Parser(
        prog=f"python -m fulgurite.probes {probe}",
        description=about + ABOUT,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(probe=probe)
    parser.add_argument("images", nargs="+", type=Path, help="files, or folders of files")
    parser.add_argument("--network", required=True, help="torchvision/NAME, timm/NAME or one of our own")
    parser.add_argument(
        "--weights", type=Path, help="a safetensors file or checkpoint; published weights without it"
    )
    parser.add_argument("--classes", type=Path, help="a text file with the classes' names, one a line")
    parser.add_argument(
        "--target", action="append", help="a class by name or number; may be given several times"
    )
    parser.add_argument("--of", choices=SCORES, default="score", help="what is asked of the class")
    parser.add_argument("--score_layer", default="", help="where scores are read, if not at the output")
    parser.add_argument(
        "--channel", action="append", metavar="LAYER:INDEX", help="ask about a channel instead of a class"
    )
    parser.add_argument(
        "--unit", action="append", metavar="LAYER:INDEX[:ROW:COLUMN]", help="or about one unit of it"
    )
    parser.add_argument(
        "--size",
        type=int,
        help="side of the square that is cut from the middle; what the network was made for without it",
    )
    parser.add_argument("--out", type=Path, default=Path(f"{probe}.png"), help="the picture; %(default)s")
    parser.add_argument("--look", choices=("auto", "signed", "heat", "over"), default="auto", help="of maps")
    parser.add_argument("--side", type=int, default=224 if probe in METHODS else 144, help="of a tile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    if probe == "compare":
        usual = (
            f"names with commas, or all; without it {','.join(USUAL)}, less what the network is not made for"
        )
        parser.add_argument("--methods", help=usual)
    for name, default in knobs.items():
        parser.add_argument(f"--{name}", default=default, type=_value, help="default %(default)s")
    asked = parser.parse_args(list(words))
    for name in ("size", "side"):
        if (number := getattr(asked, name)) is not None and number < 1:
            raise ValueError(f"--{name} {number}; wanted a number of pixels, at least 1")
    named = getattr(asked, "methods", None)
    asked.usual = probe == "compare" and named is None
    asked.methods = _methods(probe, named)
    if asked.methods == ["all"]:
        asked.methods = [name for name in METHODS if name != "backward_rules"]  # which is guided_backprop
        asked.usual = True
    for name in asked.methods:
        method_of(name)
    asked.knobs = {name: _like(default, getattr(asked, name), name) for name, default in knobs.items()}
    return asked


def _methods(probe: str, named: str | None) -> list[str]:
    if probe != "compare":
        return ["saliency" if probe == "segment" else probe]
    return USUAL.copy() if named is None else [name.strip() for name in named.split(",")]


def _knobs(probe: str) -> dict[str, Any]:
    """What can be chosen of a probe, and what it is otherwise."""
    functions = (
        METHODS.values() if probe == "compare" else [grabcut if probe == "segment" else method_of(probe)]
    )
    known = {name: knob.default for function in functions for name, knob in knobs_of(function).items()}
    return {name: default for name, default in known.items() if name != "progress"}


def _value(word: str) -> Any:
    """A number, a list, true or false as JSON has them; a word as it is."""
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        return word


_KINDS: Mapping[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    type(None): ((int, list), "a whole number, or two as [HEIGHT,WIDTH]"),
}


def _like(default: Any, value: Any, name: str) -> Any:
    """The value, if it is of the default's kind; words are left to the probe."""
    if value is default:
        return value
    if name == "layer":
        return str(value)
    kinds, wanted = _KINDS.get(type(default), ((object,), ""))
    if not isinstance(value, kinds) or (isinstance(value, bool) and type(default) is not bool):
        raise ValueError(f"--{name} {value}; wanted {wanted}")
    return tuple(value) if isinstance(value, list) else value


def _look(asked: argparse.Namespace) -> None:
    """Answer, and write the picture: a row for each image and question."""
    _check_writable(asked.out)
    files = _files(asked.images)
    network, names, size, channels = _network(asked)
    questions = _questions(asked, network, names)
    files, images = _images(files, asked.images, size, channels)
    stems = [file.stem for file in files]
    called = [file.stem if stems.count(file.stem) == 1 else str(file) for file in files]
    rows: dict[str, Sequence[RGB]] = {}
    for start in tqdm(
        range(0, len(images), AT_ONCE), "images", delay=3, leave=False, disable=len(files) <= AT_ONCE
    ):
        part = images[start : start + AT_ONCE].to(asked.device)
        for place, what, tiles in _rows(asked, network, names, part, questions):
            rows[f"{called[start + place]} {what}".rstrip()] = tiles
    pixels = comparison(rows, [*asked.methods, *["mask", "cut-out"] * (asked.probe == "segment")])
    write(pixels, asked.out)
    print(f"{asked.out}: {pixels.shape[2]} x {pixels.shape[1]}, {len(rows)} rows")


def _rows(
    asked: argparse.Namespace,
    network: nn.Module,
    names: Sequence[str],
    images: Float[Tensor, "n c h w"],
    questions: Mapping[str, Question],
) -> Iterator[tuple[int, str, list[RGB]]]:
    """For each image and question: the image's place, what else the row is called, and its tiles."""
    chances = predict(network, images).softmax(1)
    guesses = chances.argmax(1)
    questions = questions or {"": (None, SCORES[asked.of](guesses, layer=asked.score_layer))}
    maps = _maps(asked, network, images, [objective for _, objective in questions.values()])
    for k, (what, (number, _)) in enumerate(questions.items()):
        for place, image in enumerate(images):
            told = int(guesses[place]) if number is None else number
            own = {name: values[k, place] for name, values in maps.items()}
            # what a channel or a unit is asked about is no class
            caption = f"{names[told]}: {chances[place, told]:.0%}" if what in ("", names[told]) else what
            tiles = row(image, own, caption, look=asked.look, side=asked.side)
            if asked.probe == "segment":
                mask = grabcut(image[None], own["saliency"][None], **asked.knobs)
                found = sized(picture(mask[0].float()), asked.side)
                tiles.append(found if mask.any() else captioned(found, "no object found"))
                tiles.append(sized(picture(cut_out(image[None], mask)[0]), asked.side))
            yield place, what if len(questions) > 1 or number is None else "", tiles


def _maps(
    asked: argparse.Namespace,
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objectives: Sequence[Objective],
) -> dict[str, Float[Tensor, "k n _ h w"]]:
    """The maps of each method; the usual ones give way where the network is not made for them."""
    knobs = {} if asked.probe == "segment" else asked.knobs
    maps = {}
    for name in list(asked.methods):
        try:
            maps[name] = attribute(name, network, images, objectives, **knobs, progress=name)
        except ValueError as error:
            if not asked.usual:
                raise
            asked.methods.remove(name)
            print(f"note: without {name}: {error}", file=sys.stderr)
    if not maps:
        raise ValueError("the network is made for none of the usual methods; name others by --methods")
    return maps


def _questions(asked: argparse.Namespace, network: nn.Module, names: Sequence[str]) -> dict[str, Question]:
    """What is asked of every image alike; nothing, if it is the class predicted."""
    for layer in (asked.score_layer, asked.knobs.get("layer") or ""):
        layer_of(network, layer)
    found: dict[str, Question] = {}
    for target in asked.target or ():
        number = _class_of(target, names)
        found[names[number]] = number, SCORES[asked.of](number, layer=asked.score_layer)
    for option, make, most in (("channel", channel, 1), ("unit", unit, 3)):
        for words in getattr(asked, option) or ():
            layer, *numbers = words.split(":")
            layer_of(network, layer)
            if not (1 <= len(numbers) <= most and len(numbers) != 2 and all(n.isdecimal() for n in numbers)):
                wanted = "LAYER:INDEX" + "[:ROW:COLUMN]" * (most > 1)
                raise ValueError(f"--{option} {words}; wanted {wanted}, such as layer3:17")
            places = dict(zip(("row", "column"), map(int, numbers[1:]), strict=False))
            found[f"{option} {words}"] = None, make(layer, int(numbers[0]), **places)
    return found


def _class_of(target: str, names: Sequence[str]) -> int:
    """A class by its name or number."""
    if target.isdecimal() and int(target) >= len(names):
        raise ValueError(f"no class {target}; wanted a name, or a number from 0 to {len(names) - 1}")
    alike = [number for number, name in enumerate(names) if name.lower() == target.lower()]
    if len(alike) > 1:
        raise ValueError(f"--target {target!r} is the name of classes {alike}; give the number")
    if not alike and target.isdecimal():
        return int(target)
    if not alike:
        raise ValueError(f"no class {target!r} among {len(names)}; {nearest(target, names)}, or a number")
    return alike[0]


def _files(paths: Sequence[Path]) -> list[Path]:
    """The images, and those in the folders."""
    found: list[Path] = []
    for path in paths:
        inside = (
            sorted(file for file in path.rglob("*") if file.suffix.lower() in FILES)
            if path.is_dir()
            else [path]
        )
        if not inside or not inside[0].is_file():
            raise ValueError(f"no images in {path}" if path.is_dir() else f"no image {path}")
        found += inside
    return found


def _images(
    files: Sequence[Path], named: Sequence[Path], size: int, channels: int
) -> tuple[list[Path], Float[Tensor, "n c h w"]]:
    """What can be read; a file that was named must be, one in a folder is left out with a note."""
    read: dict[Path, Float[Tensor, "c h w"]] = {}
    for file in files:
        try:
            read[file] = _image(file, size, channels)
        except ValueError as error:
            if file in named:
                raise
            print(f"note: left out: {error}", file=sys.stderr)
    if not read:
        raise ValueError("none of the images can be read")
    return list(read), torch.stack(list(read.values()))


def _image(file: Path, size: int, channels: int) -> Float[Tensor, "c h w"]:
    try:
        with Image.open(file) as image:
            return from_the_middle(size)(upright(image, channels=channels))
    except OSError as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from None


def _network(asked: argparse.Namespace) -> tuple[nn.Module, Sequence[str], int, int]:
    """The network with its weights, its classes' names, and what images it takes: their side and channels."""
    classes, channels = told_by(asked.network, asked.weights) if asked.weights else (1000, 3)
    try:
        network = build(
            asked.network,
            classes=classes,
            channels=channels,
            pretrained=asked.weights is None,
            weights=asked.weights,
        )
    except ValueError as error:
        if asked.weights is None and "weights" in str(error):
            raise ValueError(f"{error}: --weights FILE.safetensors") from None
        raise
    names = _lines(asked.classes) if asked.classes else class_names(classes)
    if len(names) != classes:
        raise ValueError(f"{asked.classes} names {len(names)} classes, the network has {classes}")
    size = asked.size or input_size(asked.network)
    check_takes(network, channels, size)
    try:
        return network.eval().to(asked.device), names, size, channels
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {asked.device}: {str(error).splitlines()[0]}") from None


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no text; wanted the names of the classes, one a line") from None


def _check_writable(out: Path) -> None:
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out {out}; wanted a name that ends in .png or .jpg")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK) or out.is_dir():
        raise ValueError(f"--out {out}: nothing can be written there")


if __name__ == "__main__":
    sys.exit(main())
