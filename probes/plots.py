"""Scatter plots, line plots and confusion matrices, as 8-bit RGB that can also be written as SVG or PDF.

Drawn by ourselves, not with Matplotlib: a plot takes 5 ms where Matplotlib takes 50 at each epoch, looks like
the other pictures, and is the same to the pixel on every machine.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.axes import names_below, ticks, with_axes, with_class_names
from fulgurite.probes.colours import heat, scale_bar
from fulgurite.probes.drawing import RGB, Drawing
from fulgurite.probes.intervals import wilson
from fulgurite.probes.legend import Points, draw_legend, free_corner, longest_name
from fulgurite.probes.render import stacked, titled
from fulgurite.probes.style import LINE, Colour, theme
from fulgurite.probes.style import colour as colour

MATRIX = 300
"""The least side of a confusion matrix, in pixels."""


def scatter_plot(
    points: Float[Tensor, "n 2"],
    labels: Int[Tensor, "n"],
    classes: Sequence[str],
    *,
    side: int = 480,
    title: str = "",
) -> RGB:
    """Points in the plane, coloured by class, with a legend of up to twenty classes."""
    low, high = points.amin(0), points.amax(0)
    places = (0.03 + 0.94 * (points - low) / (high - low).clamp(min=1e-12)) * side
    shown = [label for label in range(len(classes)) if bool((labels == label).any())][:20]
    paper = Drawing(side + 20 + longest_name([classes[label] for label in shown]), side)
    for (x, y), label in zip(places.tolist(), labels.tolist(), strict=True):
        paper.dot((x, side - y), 2.5, colour(label))
    draw_legend(paper, side, 6, [(classes[label], colour(label)) for label in shown], spacing=LINE + 4)
    return titled(paper.pixels(), title)


def line_plot(
    lines: Mapping[str, Points],
    *,
    xlabel: str,
    ylabel: str,
    ymin: float | None = None,
    ymax: float | None = None,
    vline: float | None = None,
    size: tuple[int, int] = (420, 280),
    title: str = "",
    chance: float | None = None,
    images: int | Mapping[str, Sequence[int]] | None = None,
) -> RGB:
    """Lines through points, each of its own colour and named, over axes that begin at 0.

    Args:
        lines: the points of each, by name; a single point is a dot.
        xlabel: what the horizontal axis is.
        ylabel: what the vertical one is.
        ymin: where the vertical axis begins, whatever the values; without it at 0, or at `chance`.
        ymax: where the vertical axis ends; at the largest value without it.
        vline: where to draw a vertical line, which is named below the axis.
        size: width and height of the area within the axes, in pixels.
        title: above it.
        chance: the accuracy of guesses: a line is drawn there, and the vertical axis begins there unless a
            value is below.
        images: the number of images that the values are shares of, one for all lines or one for each, 0 where
            it is unknown: error bars are 95 % intervals (Wilson 1927).

    Raises:
        ValueError: no points, or some that are negative or not finite.
    """
    points = [point for line in lines.values() for point in line]
    if not points or not all(math.isfinite(x) and math.isfinite(y) and min(x, y) >= 0 for x, y in points):
        raise ValueError(f"points {points}; wanted at least one, all finite and at least 0")
    xmax = max(x for x, _ in points) or 1.0
    ymax = (max(y for _, y in points) if ymax is None else ymax) or 1.0
    ymin = _begin([y for _, y in points], chance, ymax) if ymin is None else ymin
    width, height = size
    paper = Drawing(width, height)

    def at(x: float, y: float) -> tuple[float, float]:
        up = max(0.0, min((y - ymin) / (ymax - ymin), 1.0))
        return min(x / xmax, 1) * (width - 2) + 0.5, (1 - up) * (height - 2) + 0.5

    stops = ticks(xmax)
    if all(float(x).is_integer() for x, _ in points):  # such as epochs
        stops = [tick for tick in stops if tick.is_integer()]
    for tick in stops:
        paper.line([at(tick, ymin), at(tick, ymax)], theme().faint)
    heights = [tick for tick in ticks(ymax) if tick >= ymin]
    for tick in heights:
        paper.line([at(0, tick), at(xmax, tick)], theme().faint)
    _draw_chance(paper, chance, None if chance is None else at(0, chance)[1])
    if vline is not None:
        paper.line([at(vline, ymin), at(vline, ymax)], theme().ink)
    for number, (name, line) in enumerate(lines.items()):
        counts = images.get(name, ()) if isinstance(images, Mapping) else [images or 0] * len(line)
        for (x, y), count in zip(line, counts, strict=False):
            if count:
                ends = wilson(round(y * count), count)
                _draw_interval(paper, [at(x, end) for end in ends], colour(number))
        _draw_line(paper, [at(*point) for point in line], colour(number), radius=3)
    entries = [(name, colour(n)) for n, name in enumerate(lines) if name]
    corner = free_corner(lines, size, xmax, ymax, ymin=ymin)
    if corner is None or (LINE + 2) * len(entries) > 0.6 * height:
        paper.width += 24 + longest_name(lines)
        draw_legend(paper, width + 2, 4, entries)
    else:
        draw_legend(paper, *corner, entries)
    below = Drawing(paper.width + 32, 3 * LINE - 4)
    for tick in stops:
        below.text((16 + tick / xmax * width, 3), f"{tick:g}", anchor="mt")
    named = xlabel if vline is None else f"{xlabel}; the vertical line is at {vline:.3g}"
    below.text((16 + width / 2, LINE + 4), named, anchor="mt")
    drawn = with_axes(
        paper.pixels(),
        below.pixels(),
        ylabel,
        {tick: at(0, tick)[1] for tick in heights},
    )
    return titled(drawn, title)


def category_plot(
    names: Sequence[str],
    lines: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    ymax: float | None = None,
    intervals: Sequence[tuple[float, float]] | None = None,
    max_lines: int = 8,
    title: str = "",
    chance: float | None = None,
    ordered: bool = True,
) -> RGB:
    """Lines over named places such as layers, from dim for the first line to bright for the last.

    Args:
        names: what the values are of, from left to right.
        lines: a value for each name, by the line's own name; what is not finite leaves a gap.
        ylabel: what the values are.
        ymax: where the axis, which begins at 0, ends; at the largest value without it.
        intervals: the lower and upper ends of the interval of each value of the last line.
        max_lines: lines drawn: the first, the last, and others evenly between them.
        title: above it.
        chance: the accuracy of guesses: a line is drawn there, and the axis begins there unless a value is
            below.
        ordered: whether the lines have an order, such as epochs; others have the colours of `line_plot`.

    Raises:
        ValueError: no names, no lines, or a line that has not one value for each name.
    """
    if not names or not lines:
        raise ValueError(f"{len(names)} names and {len(lines)} lines; wanted at least one of both")
    if wrong := [name for name, values in lines.items() if len(values) != len(names)]:
        raise ValueError(f"line {wrong[0]!r} has {len(lines[wrong[0]])} values for {len(names)} names")
    kept = sorted({round(place * (len(lines) - 1) / (max_lines - 1)) for place in range(max_lines)})
    drawn = dict(list(lines.items())[place] for place in kept) if len(lines) > max_lines else dict(lines)
    known = [y for values in [*drawn.values(), *(intervals or ())] for y in values if math.isfinite(y)]
    end = ymax or 1.04 * max(known, default=0.0) or 1.0
    begin = _begin([y for values in drawn.values() for y in values if math.isfinite(y)], chance, end)
    shades = torch.linspace(1.0, 0.35, len(drawn)).flip(0)  # one alone is bright
    if theme().background[0] > 127:
        shades = shades.clamp(max=0.9)
    colours = [tuple(shade) for shade in heat(shades[None], top=1.0)[:, 0].T.tolist()]
    if not ordered:
        colours = [colour(number) for number in range(len(drawn))]
    step, height, edge = max(8, min(90, 560 // len(names))), 200, 3
    field = step * len(names)
    paper = Drawing(field + 24 + longest_name(drawn), max(height, (LINE + 2) * len(drawn) + 4))

    def at(place: int, value: float) -> tuple[float, float]:
        up = max(0.0, min((value - begin) / (end - begin), 1.0))
        return (place + 0.5) * step, edge + (1 - up) * (height - 2 * edge)

    stops = [tick for tick in ticks(end) if tick >= begin]
    for tick in stops:
        paper.line([(0, at(0, tick)[1]), (field, at(0, tick)[1])], theme().faint)
    _draw_chance(paper, chance, None if chance is None else at(0, chance)[1], width=field)
    for place, interval in enumerate(intervals or ()):
        _draw_interval(paper, [at(place, value) for value in interval], colours[-1])
    for values, shade in zip(drawn.values(), colours, strict=True):
        places = [at(place, y) if math.isfinite(y) else None for place, y in enumerate(values)]
        _draw_line(paper, places, shade, radius=2.5)
    entries = list(zip(drawn, colours, strict=True))
    draw_legend(paper, field + 2, 4, entries[::-1] if ordered else entries)
    heights = {tick: at(0, tick)[1] for tick in stops}
    return titled(with_axes(paper.pixels(), names_below(names, step), ylabel, heights, margin=0), title)


def confusion_matrix(
    counts: Int[Tensor, "k k"],
    classes: Sequence[str],
    *,
    title: str = "",
    least: int = MATRIX,
    scale: bool = True,
) -> RGB:
    """True classes as rows, predicted ones as columns; colour is the share of the true class, see the scale.

    The numbers are counts; `least` is the least side in pixels. Without `scale`, where several share one.

    Raises:
        ValueError: there is not one name for each class.
    """
    if len(classes) != len(counts):
        raise ValueError(f"wanted a name for each of {len(counts)} classes, got {len(classes)}")
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    cell = max(4, min(34, 680 // len(classes)), -(-least // len(classes)))
    pixels = heat(shares, top=1.0).repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    paper = Drawing(cell * len(classes), cell * len(classes))
    paper.put((0, 0), pixels)
    dark_paper = theme().background[0] < 128
    for row, column in counts.nonzero().tolist() if cell >= 20 else ():
        ink = (225, 225, 230) if bool(shares[row, column] < 0.6) == dark_paper else (0, 0, 0)
        middle = (column * cell + cell / 2, row * cell + cell / 2)
        paper.text(middle, str(int(counts[row, column])), ink, anchor="mm")
    drawn = with_class_names(paper.pixels(), classes, cell)
    return titled(stacked([drawn, matrix_scale()], gap=6) if scale else drawn, title)


def matrix_scale() -> RGB:
    """The scale of confusion matrices."""
    return scale_bar("magnitude", 1.0, "share of the true class")


def _begin(values: Sequence[float], chance: float | None, end: float) -> float:
    """Where an axis begins: at chance, if no value is below."""
    return chance if chance is not None and min(values, default=1.0) >= chance < end else 0.0


def _draw_chance(
    paper: Drawing, chance: float | None, height: float | None, *, width: float | None = None
) -> None:
    if chance is None or height is None:
        return
    wide = paper.width if width is None else width
    for start in range(0, int(wide), 8):
        paper.line([(start, height), (min(start + 4, wide), height)], theme().ink)
    paper.text((4, height - LINE), f"chance {chance:.3g}")


def _draw_interval(paper: Drawing, ends: Sequence[tuple[float, float]], fill: Colour) -> None:
    paper.line(ends, fill)
    for x, y in ends:
        paper.line([(x - 3, y), (x + 3, y)], fill)


def _draw_line(
    paper: Drawing, places: Sequence[tuple[float, float] | None], fill: Colour, *, radius: float
) -> None:
    for place, following in zip(places, [*places[1:], None], strict=True):
        if place and following:
            paper.line([place, following], fill, 2)
        if place:
            paper.dot(place, radius, fill)
