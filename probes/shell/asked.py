"""What is asked in the words of the shell: options, and values of the kind that is wanted."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are `ValueError`s."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is."""
        raise ValueError(f"{message}; {self.prog} --help says what can be chosen")


def parser_of(probe: str, about: str, *, side: int) -> Parser:
    """The options that every probe has: images, network, and where the picture goes.

    Args:
        probe: its name.
        about: what it does.
        side: of a tile of its picture, unless asked otherwise.
    """
    parser = Parser(
        prog=f"python -m fulgurite.probes {probe}",
        description=about,
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
        "--size",
        type=int,
        help="side of the square that is cut from the middle; what the network was made for without it",
    )
    parser.add_argument("--out", type=Path, default=Path(f"{probe}.png"), help="the picture; %(default)s")
    parser.add_argument("--side", type=int, default=side, help="of a tile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def check_sides(asked: argparse.Namespace) -> None:
    """See that what is asked for has a size.

    Raises:
        ValueError: it has none.
    """
    for name in ("size", "side"):
        if (number := getattr(asked, name)) is not None and number < 1:
            raise ValueError(f"--{name} {number}; wanted a number of pixels, at least 1")


def value(word: str) -> Any:
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


def like(default: Any, value: Any, name: str) -> Any:
    """The value, if it is of the default's kind; words are left to the probe.

    Raises:
        ValueError: it is of another.
    """
    if value is default:
        return value
    if name == "layer":
        return str(value)
    kinds, wanted = _KINDS.get(type(default), ((object,), ""))
    if not isinstance(value, kinds) or (isinstance(value, bool) and type(default) is not bool):
        raise ValueError(f"--{name} {value}; wanted {wanted}")
    return tuple(value) if isinstance(value, list) else value
