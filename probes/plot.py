"""Lines over an axis, with numbers at both."""

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from fulgurite.probes.charts import colour
from fulgurite.probes.render import GROUND, INK, LINE, RGB, cut, font, from_pil

FAINT = (66, 66, 72)
Points = Sequence[tuple[float, float]]


def plot(
    lines: Mapping[str, Points],
    *,
    across: str,
    up: str,
    top: float | None = None,
    mark: float | None = None,
    size: tuple[int, int] = (420, 280),
) -> RGB:
    """Lines through points, each of its own colour, over axes that begin at 0.

    Args:
        lines: the points of each, by name; a single point is a dot.
        across: what the horizontal axis is.
        up: what the vertical one is.
        top: where the vertical axis ends; at the largest value without it.
        mark: where to draw an upright line.
        size: width and height of the field, in pixels.

    Raises:
        ValueError: no points, or some that are negative or not finite.
    """
    points = [point for line in lines.values() for point in line]
    if not points or not all(math.isfinite(x) and math.isfinite(y) and min(x, y) >= 0 for x, y in points):
        raise ValueError(f"points {points}; wanted at least one, all finite and at least 0")
    ends = max(x for x, _ in points) or 1.0, (max(y for _, y in points) if top is None else top) or 1.0
    stops = ticks(ends[0]), ticks(ends[1])
    left, above = 8 + max(int(font().getlength(f"{stop:g}")) for stop in stops[1]), LINE + 4
    right, below = left + size[0], above + size[1]
    paper = Image.new("RGB", (right + 16, below + 3 * LINE - 4), GROUND)
    paper.paste(_field(lines, ends, stops, mark, size), (left, above))
    pen = ImageDraw.Draw(paper)
    pen.text((2, 0), cut(up, right), INK, font=font())
    pen.text(((left + right) / 2, below + LINE + 4), across, INK, font=font(), anchor="mt")
    for stop in stops[0]:
        pen.text((left + stop / ends[0] * size[0], below + 3), f"{stop:g}", INK, font=font(), anchor="mt")
    for stop in stops[1]:
        pen.text((left - 5, below - stop / ends[1] * size[1]), f"{stop:g}", INK, font=font(), anchor="rm")
    for place, name in enumerate(lines):
        top_of = above + 8 + place * (LINE + 2)
        pen.text((right - 18, top_of), cut(name, 120), INK, font=font(), anchor="rt")
        pen.ellipse([right - 14, top_of + 1, right - 8, top_of + 7], colour(place))
    return from_pil(paper)


def ticks(end: float) -> list[float]:
    """Round numbers from 0 to at most `end`, three to eight of them."""
    power = 10.0 ** math.floor(math.log10(end))
    step = next(step * power for step in (0.2, 0.5, 1, 2) if end / (step * power) <= 7)
    return [float(f"{k * step:.6g}") for k in range(math.floor(end / step * (1 + 1e-9)) + 1)]


def _field(
    lines: Mapping[str, Points],
    ends: tuple[float, float],
    stops: tuple[Sequence[float], Sequence[float]],
    mark: float | None,
    size: tuple[int, int],
) -> Image.Image:
    """The field between the axes, with the lines and their names in it."""
    wide, high = 2 * size[0], 2 * size[1]  # drawn at twice the size and shrunk: smooth lines
    paper = Image.new("RGB", (wide, high), GROUND)
    pen = ImageDraw.Draw(paper)

    def at(x: float, y: float) -> tuple[float, float]:
        return min(x / ends[0], 1) * (wide - 4) + 1, (1 - min(y / ends[1], 1)) * (high - 4) + 1

    for stop in stops[0]:
        pen.line([at(stop, 0), at(stop, ends[1])], FAINT, 2)
    for stop in stops[1]:
        pen.line([at(0, stop), at(ends[0], stop)], FAINT, 2)
    if mark is not None:
        pen.line([at(mark, 0), at(mark, ends[1])], INK, 2)
    for place, line in enumerate(lines.values()):
        places = [at(*point) for point in line]
        if len(places) > 1:
            pen.line(places, colour(place), 4, joint="curve")
        for x, y in places:
            pen.ellipse([x - 6, y - 6, x + 6, y + 6], colour(place))
    return paper.resize(size, Image.Resampling.BOX)
