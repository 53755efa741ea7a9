"""Command-line options of probes on image files."""

import argparse
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

import torch

from fulgurite.probes.style import THEMES

PICTURE = "the picture, by its ending PNG, JPEG, SVG or PDF; %(default)s"
NETWORK = "torchvision/NAME, timm/NAME, hf-hub:OWNER/NAME, small_vgg, your own (my_package.nets.Net), or RUN"
WEIGHTS = "a safetensors file or checkpoint; published weights without it"
SIDE = 4096
"""The largest side of an image or tile, in pixels: at 4096, a network such as a ResNet-18 takes gigabytes."""
WHOLE = 2**31 - 1
MANY = 100_000
"""The largest value of any count, such as draws or steps: an hour of passes through a small network."""
MOST = {
    "restarts": 1000,
    "segments": 1000,
    "cells": 256,
    "components": 100,
    "repeats": 100,
    "most": 256,
    "seeds": 1000,
    "count": 64,
    "octaves": 32,
    "children": 10_000,
}
"""A smaller limit where each takes memory, or multiplies another number."""
SCALE = (
    "what the network normalises images in [0, 1] by, a number per channel with commas; as its weights expect"
)
WHITE = "the value of white in images of more than 8 bits, such as 4095; from the file without it"
SQUARE = "side of the square that is cut from the middle; what the network was made for without it"
FLOAT = torch.finfo(torch.float32).max
ALSO = {"--layer": "--layers", "--layers": "--layer", "--target": "--class", "--class": "--target"}
"""Options with two spellings."""


class Parser(argparse.ArgumentParser):
    """A parser of the words of one verb, which raises `ValueError`."""

    def __init__(self, verb: str, about: str):
        super().__init__(
            prog=f"fulgurite {verb}",
            description=about,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_argument(self, *names: str, **how: Any) -> argparse.Action:
        """An option; those for layers and classes have two spellings, of which one may be given.

        Of a path, the empty name is refused, which would be the current folder; but of several networks'
        weights it is that of a run.
        """
        if how.get("type") is Path and "--weights" not in names:
            how["type"] = _named
        if not (others := [ALSO[name] for name in names if name in ALSO]):
            return super().add_argument(*names, **how)
        return super().add_argument(*names, *others, **{"action": Once, **how})

    def error(self, message: str) -> NoReturn:
        """Raise with the message, and a hint on help."""
        raise ValueError(f"{message}; {self.prog} --help lists the options")


class Once(argparse.Action):
    """A value that is stored; a second one, in either spelling of the option, is an error."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Store it, or raise if there is one already."""
        before = getattr(namespace, self.dest)
        if before not in (self.default, values):
            either = " or ".join(self.option_strings)
            parser.error(f"{either} is given twice, as {before} and as {values}; wanted it once")
        setattr(namespace, self.dest, values)


class Listed(argparse.Action):
    """A list: the option once with commas, or several times. A file whose name holds a comma is one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Append the parts."""
        whole = isinstance(values, Path) and values.exists()
        words = [] if whole else [part.strip() for part in str(values).split(",")]
        if isinstance(values, Path) and self.dest != "weights" and "" in words:
            parser.error(f"{self.option_strings[0]} {values}: a name is empty; wanted files with commas")
        parts = [values] if whole else [type(values)(word) for word in words]
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or ()), *parts])


def parser_of(
    probe: str,
    about: str,
    *,
    side: int,
    needs_images: bool = True,
    several: bool = False,
    sizing: str = SQUARE,
) -> Parser:
    """The options that every probe has: images, network, and where the picture goes.

    Args:
        probe: its name.
        about: what it does.
        side: the default side of a tile of its picture, in pixels.
        needs_images: whether it needs an image at all.
        several: whether it compares networks, which then are a list, as their weights are.
        sizing: the help of --size.
    """
    parser = Parser(probe, about)
    parser.set_defaults(probe=probe)
    parser.add_argument(
        "images", nargs="+" if needs_images else "*", type=Path, help="files, or folders of files"
    )
    add_network(parser, several=several)
    parser.add_argument("--classes", type=Path, help="a text file with the classes' names, one a line")
    parser.add_argument("--size", type=int, help=sizing)
    for name in ("mean", "std"):
        parser.add_argument(f"--{name}", type=_numbers, help=SCALE)
    parser.add_argument("--white", type=_white, help=WHITE)
    add_picture(parser, probe)
    parser.add_argument("--side", type=int, default=side, help="of a tile")
    add_device(parser)
    return parser


def add_network(parser: argparse.ArgumentParser, *, several: bool = False, weights: str = WEIGHTS) -> None:
    """Add the options that name a network, or several, and its weights."""
    listed: dict[str, Any] = {"action": Listed} if several else {}
    parser.add_argument("--network", required=True, help=NETWORK, **listed)
    parser.add_argument("--weights", type=Path, help=weights, **listed)


def add_picture(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options for the file of a picture, by default `NAME.png`, and its style."""
    parser.add_argument("--out", type=Path, default=Path(f"{name}.png"), help=PICTURE)
    parser.add_argument("--theme", choices=THEMES, default="dark", help="of the picture: light for papers")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option for the device: a GPU if there is one."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def about_of(function: Callable) -> str:
    """The docstring of a function, up to its arguments."""
    return (inspect.getdoc(function) or "").split("\nArgs:")[0].strip()


def check_sides(args: argparse.Namespace) -> None:
    """Check that images and tiles have a size that can be computed.

    Raises:
        ValueError: they have not.
    """
    for name in ("size", "side"):
        if (number := getattr(args, name)) is not None and not 1 <= number <= SIDE:
            raise ValueError(f"--{name} {number}; wanted a number of pixels, from 1 to {SIDE}")


def check_least(values: Mapping[str, Any], names: Sequence[str], least: int = 1) -> None:
    """Check that options, where they are given, are large enough.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        if (number := values.get(name)) is not None and number < least:
            raise ValueError(f"--{name} {number}; wanted at least {least}")


def value(word: str) -> Any:
    """A number, a list, true or false as in JSON; any other word unchanged."""
    try:
        return json.loads(word)
    except (ValueError, RecursionError):  # also too many digits, too many brackets
        return word


def like(default: Any, value: Any, name: str, kind: Any = None) -> Any:
    """The value, if it is of the default's kind.

    Args:
        default: the value without the option.
        value: the given value.
        name: of the option.
        kind: its annotation; if it is a `Literal`, these words are allowed.

    Raises:
        ValueError: it is of another kind, not finite in float32, a whole number of more than 31 bits, or
            counts more than can be computed.
    """
    if value is default:
        return value
    if name == "layer":
        return str(value)
    words = _literals(kind)
    whole = _is_whole(value)
    number = whole or (isinstance(value, float) and abs(value) <= FLOAT)
    fits, wanted = {
        bool: (isinstance(value, bool), "true or false"),
        int: (whole, f"a whole number of at most {WHOLE}"),
        float: (number, "a number"),
        str: (value in words or (number and name == "fill"), f"one of {', '.join(words)}"),
        type(None): (whole or _is_pair(value), "a whole number, or two as [HEIGHT,WIDTH]"),
    }[type(default)]
    if not fits:
        raise ValueError(f"--{name} {value}; wanted {wanted}")
    if type(default) is int and name != "seed" and value > (limit := MOST.get(name, MANY)):
        raise ValueError(f"--{name} {value}; wanted at most {limit}")
    return tuple(value) if isinstance(value, list) else value


def _numbers(word: str) -> list[float]:
    return [float(part) for part in word.split(",")]


def _named(word: str) -> Path:
    if not word.strip():
        raise argparse.ArgumentTypeError("the name is empty; wanted a file or a folder")
    return Path(word)


def _white(word: str) -> int:
    try:
        white = int(word)
    except ValueError:
        white = 0
    if not 1 <= white <= 65535:
        raise argparse.ArgumentTypeError(f"{word!r}; wanted a value of 16 bits, from 1 to 65535")
    return white


def _literals(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for part in get_args(kind) for word in _literals(part)]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= WHOLE


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value))


def lines_of(file: Path) -> list[str]:
    """The lines of the file that --classes names.

    Raises:
        ValueError: there is none, or it is no text.
    """
    if not file.is_file():
        raise ValueError(
            f"--classes {file}: there is no such file; wanted the names of the classes, one a line"
        )
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not text; wanted the names of the classes, one a line") from None
