"""Axes of plots: round numbers, labels, and names of layers or classes."""

import math
from collections.abc import Mapping, Sequence

from fulgurite.probes.drawing import RGB, Drawing, length
from fulgurite.probes.legend import longest_name
from fulgurite.probes.render import cut
from fulgurite.probes.style import LINE, LONGEST

EDGE = 6  # of paper between names, and at an end, in pixels


def ticks(end: float) -> list[float]:
    """Round numbers from 0 to at most `end`, three to eight of them."""
    power = 10.0 ** math.floor(math.log10(end))
    step = next(step * power for step in (0.2, 0.5, 1, 2) if end / (step * power) <= 7)
    return [float(f"{k * step:.6g}") for k in range(math.floor(end / step * (1 + 1e-9)) + 1)]


def with_axes(
    area: RGB,
    below: RGB,
    ylabel: str,
    heights: Mapping[float, float],
    *,
    margin: int = 16,
) -> RGB:
    """The area with numbers to the left at their heights, its label above, and what belongs below it.

    `below` juts out by `margin` on both sides; the label is never cut.
    """
    left, above = max(margin, 8 + longest_name([f"{tick:g}" for tick in heights])), LINE + 6
    width = max(left + area.shape[2] + margin, 4 + int(length(ylabel)))
    paper = Drawing(width, above + area.shape[1] + below.shape[1])
    paper.put((left - margin, above + area.shape[1]), below)
    paper.put((left, above), area)
    paper.text((2, 0), ylabel)
    for tick, height in heights.items():
        paper.text((left - 5, above + height), f"{tick:g}", anchor="rm")
    return paper.pixels()


def names_below(names: Sequence[str], step: int) -> RGB:
    """Names at equal steps: upright where they are long, and only some of them where there are many."""
    longest = 6 + longest_name(names)
    if longest <= step:
        paper = Drawing(step * len(names), LINE + 4)
        for place, name in enumerate(names):
            paper.text((place * step + step / 2, 2), name, anchor="mt")
        return paper.pixels()
    paper = Drawing(step * len(names), longest + 2)
    for place in range(0, len(names), -(-LINE // step)):
        name = cut(names[place], LONGEST)
        paper.text((place * step + step / 2, 4 + length(name) / 2), name, upright=True)
    return paper.pixels()


def with_class_names(cells: RGB, classes: Sequence[str], cell: int) -> RGB:
    """The matrix with true names to the left, predicted ones above, turned upright where they are long."""
    if cell < LINE:
        return cells
    names = [cut(name, 110) for name in classes]
    longest = 6 + longest_name(names)
    upright = longest > cell
    left, top = LINE + EDGE + longest, LINE + EDGE + (longest if upright else LINE)
    height, width = cells.shape[1:]
    paper = Drawing(left + max(width + EDGE, 60), top + height)
    paper.put((left, top), cells)
    for place, name in enumerate(names):
        middle = place * cell + cell / 2
        paper.text((left - 4, top + middle), name, anchor="rm")
        if upright:
            paper.text((left + middle, top - 4 - length(name) / 2), name, upright=True)
        else:
            paper.text((left + middle, top - LINE / 2), name, anchor="mm")
    paper.text((left, 0), "predicted")
    paper.text((LINE / 2, top + 4 + length("true") / 2), "true", upright=True)
    return paper.pixels()
