"""What is written in a picture of ours."""

from torch import Tensor

from fulgurite.probes.drawing import Drawing, drawing_of


def words(pixels: Tensor) -> list[str]:
    """The lines of text in a drawing and the drawings in it."""
    found, parts = [], [drawing_of(pixels)]
    while parts:
        part: Drawing = parts.pop()
        found += [mark.words for mark in part.marks if hasattr(mark, "words")]
        parts += [mark.drawing for mark in part.marks if getattr(mark, "drawing", None)]
    return found
