"""Commands: every probe of image files, by name."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from fulgurite.cli.inputs import check_writable

FAMILIES = (
    *("attribution", "faithfulness", "attack", "synthesis", "class_images"),
    *("activations", "patches", "concepts", "dreams", "fooling"),
)
"""The modules of this package that define `PROBES`, `parse` and `answer`."""


def probes() -> dict[str, ModuleType]:
    """For each probe, the module that runs it."""
    families = [importlib.import_module(f"fulgurite.cli.{family}") for family in FAMILIES]
    return {probe: family for family in families for probe in family.PROBES}


def run(probe: str, words: Sequence[str]) -> int:
    """Write the picture that the words ask for; warnings become notes.

    1 if images or methods were left out, each with a note, else 0.

    Raises:
        ValueError: no such probe, a wrong option, network or file.
    """
    family = probes()[probe]
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
        args = family.parse(probe, words)
        check_writable(args.out)
        args.left_out = []
        family.answer(args)
    return int(bool(args.left_out))


def first_lines() -> dict[str, str]:
    """What each probe shows, in a line."""
    return {probe: family.PROBES[probe].splitlines()[0] for probe, family in probes().items()}
