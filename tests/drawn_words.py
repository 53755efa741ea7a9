"""The text in a rendered picture."""

import pytest
from torch import Tensor

from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.probes.drawing import Drawing, drawing_of


def words(pixels: Tensor) -> list[str]:
    """The lines of text in a drawing and the drawings in it."""
    found, parts = [], [drawing_of(pixels)]
    while parts:
        part: Drawing = parts.pop()
        found += [mark.words for mark in part.marks if hasattr(mark, "words")]
        parts += [mark.drawing for mark in part.marks if getattr(mark, "drawing", None)]
    return found


def words_of(probe: type[ProbeCallback], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of text in the pictures that a probe's callbacks make from now on."""
    compose, found = probe.compose, list[str]()

    def listened(self, *args):
        made = compose(self, *args)
        found.extend(line for one in made.values() if isinstance(one, Picture) for line in words(one.pixels))
        return made

    monkeypatch.setattr(probe, "compose", listened)
    return found
