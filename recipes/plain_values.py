"""Plain values from a run's JSON files: text, numbers, true, false, none, and lists of these; never code."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fulgurite.data.arrays import MOST_CHANNELS
from fulgurite.data.crops import FRAMINGS
from fulgurite.data.image_data_module import LARGEST_SIDE

LARGEST_FILE = 4 * 2**20
"""Bytes: the names of 21,000 classes take half a megabyte."""


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is not a file, far too large, no JSON, or nested too deeply.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    if (size := file.stat().st_size) > LARGEST_FILE:
        raise ValueError(f"{file} is damaged: it has {size} bytes, and {LARGEST_FILE} are more than enough")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{file} is damaged: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def is_plain(value: Any) -> bool:
    """Whether it is text, a number, true, false, none, or a list of these."""
    simple = str | int | float | bool | None
    return isinstance(value, simple) or (
        isinstance(value, list) and all(isinstance(part, simple) for part in value)
    )


def check_plain(values: Any, what: str) -> None:
    """Check that a JSON object has plain values only.

    Raises:
        ValueError: it is not an object, or a value is something else, such as the name of a class to
            instantiate.
    """
    if not isinstance(values, dict):
        raise ValueError(
            f"its {what} is of type {type(values).__name__}; wanted an object of names and values"
        )
    for name, value in values.items():
        if not is_plain(value):
            raise ValueError(
                f"its {what} has a {type(value).__name__} for {name!r}; wanted text, a number, true, false, "
                "null, or a list of these: nothing else is ever read from a run's folder"
            )


def check_images(images: Any) -> None:
    """Check that it has the format of `Recipe.takes`, which describes a network's images, or is empty.

    Raises:
        ValueError: it is not.
    """
    check_plain(images, "images")
    if not images:
        return
    channels = images.get("channels")
    wanted = {
        "classes": (_are_names, "a list of names"),
        "size": (lambda side: _is_int(side) and 1 <= side <= LARGEST_SIDE, f"1 to {LARGEST_SIDE} pixels"),
        "channels": (lambda count: _is_int(count) and 1 <= count <= MOST_CHANNELS, f"1 to {MOST_CHANNELS}"),
        "framing": (lambda name: isinstance(name, str) and name in FRAMINGS, f"one of {', '.join(FRAMINGS)}"),
        "mean": (lambda mean: _are_numbers(mean, channels), "a number for each channel"),
        "std": (
            lambda std: _are_numbers(std, channels) and min(std) > 0,
            "a number above 0 for each channel",
        ),
    }
    for name, (suits, words) in wanted.items():
        if name not in images or not suits(images[name]):
            found = _short(images[name]) if name in images else "nothing"
            raise ValueError(f"its images have {found} for {name}; wanted {words}")
    white = images.get("white", 65535)
    if not (_is_int(white) and 1 <= white <= 65535):
        raise ValueError(f"its images have {_short(white)} for white; wanted 1 to 65535")


def check_inside(folder: Path) -> None:
    """Check that no folder in a run's folder is a link that leads out of it, so that files stay in it.

    Raises:
        ValueError: one is.
    """
    home = folder.resolve()
    for place, folders, _ in os.walk(folder):
        for path in (Path(place) / name for name in folders):
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise ValueError(
                    f"{path} leads out of the run's folder, to {path.resolve()}; remove the link"
                )


def check_keys(content: Any, known: Mapping[str, Any], what: str) -> None:
    """Check that it is a JSON object with no other names than these.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}; wanted {what}")
    if unknown := [name for name in content if name not in known]:
        raise ValueError(f"it has {_short(unknown[0])}, which is no part of {what}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(name, str) for name in value)


def _are_numbers(value: Any, count: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all((_is_int(part) or isinstance(part, float)) and math.isfinite(part) for part in value)
    )


def _short(value: Any) -> str:
    found = repr(value)
    return found if len(found) <= 60 else f"{found[:57]}..."
