"""Commands: every probe of image files, by name."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from fulgurite.cli.held_interruptions import second_held
from fulgurite.cli.known_probes import FAMILIES, family_of
from fulgurite.cli.network_of_run import composite_of_runs
from fulgurite.cli.outputs import check_picture
from fulgurite.probes.composites import composites_noted, shown_as
from fulgurite.probes.style import drawn_in


def probes() -> dict[str, ModuleType]:
    """For each probe, the module that runs it."""
    families = [_module(family) for family in FAMILIES]
    return {probe: family for family in families for probe in family.PROBES}


def run(probe: str, words: Sequence[str]) -> int:
    """Write the picture; warnings become notes.

    1 if images or methods were left out, each with a note, else 0.

    Raises:
        ValueError: a wrong option, network or file.
    """
    name = family_of(probe)
    assert name is not None
    family = _module(name)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
        args = family.parse(probe, words)
        check_picture(args)
        args.left_out = []
        shown = shown_as(composite_of_runs(args.network))
        with drawn_in(args.theme), shown, composites_noted(), second_held() as args.presses:
            family.answer(args)
    return int(bool(args.left_out))


def _module(family: str) -> ModuleType:
    return importlib.import_module(f"fulgurite.cli.{family}")
