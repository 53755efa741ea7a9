"""Scatter plots, line plots and confusion matrices, as 8-bit RGB.

Drawn with Pillow, not Matplotlib: a plot takes 5 ms where Matplotlib takes 50 at each epoch, looks like the
other pictures, and is the same to the pixel on every machine.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from torch import Tensor

from fulgurite.probes.legend import LONGEST, Colour, Points, dot, draw_legend, free_corner, longest_name
from fulgurite.probes.render import BACKGROUND, INK, LINE, RGB, cut, enlarged, font, from_pil, heat, to_pil

_FAINT = (66, 66, 72)
_PALETTE = (
    *("#4c9be8", "#f28e2b", "#59c15a", "#e15759", "#b07aa1"),
    *("#c49a6c", "#ff9da7", "#a0a6ad", "#e3d04b", "#4fd6d0"),
)


def scatter_plot(
    points: Float[Tensor, "n 2"], labels: Int[Tensor, "n"], classes: Sequence[str], *, side: int = 480
) -> RGB:
    """Points in the plane, coloured by class, with a legend of up to twenty classes."""
    low, high = points.amin(0), points.amax(0)
    places = (0.03 + 0.94 * (points - low) / (high - low).clamp(min=1e-12)) * 2 * side
    paper, pen = _paper(2 * side, 2 * side)
    for (x, y), label in zip(places.tolist(), labels.tolist(), strict=True):
        dot(pen, (x, 2 * side - y), 5, colour(label))
    shown = [label for label in range(len(classes)) if bool((labels == label).any())][:20]
    legend, _ = _paper(20 + longest_name([classes[label] for label in shown]), side)
    draw_legend(legend, 0, 6, [(classes[label], colour(label)) for label in shown], spacing=LINE + 4)
    return torch.cat([from_pil(_halved(paper)), from_pil(legend)], 2)


def line_plot(
    lines: Mapping[str, Points],
    *,
    xlabel: str,
    ylabel: str,
    ymax: float | None = None,
    vline: float | None = None,
    size: tuple[int, int] = (420, 280),
) -> RGB:
    """Lines through points, each of its own colour, over axes that begin at 0.

    Args:
        lines: the points of each, by name; a single point is a dot.
        xlabel: what the horizontal axis is.
        ylabel: what the vertical one is.
        ymax: where the vertical axis ends; at the largest value without it.
        vline: where to draw a vertical line.
        size: width and height of the area within the axes, in pixels.

    Raises:
        ValueError: no points, or some that are negative or not finite.
    """
    points = [point for line in lines.values() for point in line]
    if not points or not all(math.isfinite(x) and math.isfinite(y) and min(x, y) >= 0 for x, y in points):
        raise ValueError(f"points {points}; wanted at least one, all finite and at least 0")
    xmax = max(x for x, _ in points) or 1.0
    ymax = (max(y for _, y in points) if ymax is None else ymax) or 1.0
    width, height = size
    paper, pen = _paper(2 * width, 2 * height)

    def at(x: float, y: float) -> tuple[float, float]:
        return min(x / xmax, 1) * (2 * width - 4) + 1, (1 - min(y / ymax, 1)) * (2 * height - 4) + 1

    for tick in ticks(xmax):
        pen.line([at(tick, 0), at(tick, ymax)], _FAINT, 2)
    for tick in ticks(ymax):
        pen.line([at(0, tick), at(xmax, tick)], _FAINT, 2)
    if vline is not None:
        pen.line([at(vline, 0), at(vline, ymax)], INK, 2)
    for number, line in enumerate(lines.values()):
        _line(pen, [at(*point) for point in line], colour(number), radius=6)
    below, pen = _paper(width + 32, 3 * LINE - 4)
    for tick in ticks(xmax):
        pen.text((16 + tick / xmax * width, 3), f"{tick:g}", INK, font=font(), anchor="mt")
    pen.text((16 + width / 2, LINE + 4), xlabel, INK, font=font(), anchor="mt")
    area = _halved(paper)
    x, y = free_corner(lines, size, xmax, ymax)
    draw_legend(area, x, y, [(name, colour(n)) for n, name in enumerate(lines)])
    return with_axes(area, below, ylabel, {tick: (1 - tick / ymax) * height for tick in ticks(ymax)})


def category_plot(
    names: Sequence[str],
    lines: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    ymax: float | None = None,
    intervals: Sequence[tuple[float, float]] | None = None,
    max_lines: int = 8,
) -> RGB:
    """Lines over named places such as layers, from dark for the first line to bright for the last.

    Args:
        names: what the values are of, from left to right.
        lines: a value for each name, by the line's own name; what is not finite leaves a gap.
        ylabel: what the values are.
        ymax: where the axis, which begins at 0, ends; at the largest value without it.
        intervals: from where to where each value of the last line may lie.
        max_lines: lines drawn: the first, the last, and others evenly between them.

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
    shades = torch.linspace(1.0, 0.35, len(drawn)).flip(0)  # one alone is bright
    colours = [tuple(shade) for shade in heat(shades[None], top=1.0)[:, 0].T.tolist()]
    step, height, edge = max(8, min(90, 560 // len(names))), 200, 6
    paper, pen = _paper(2 * step * len(names), 2 * height)

    def at(place: int, value: float) -> tuple[float, float]:
        return (2 * place + 1) * step, edge + (1 - max(0.0, min(value / end, 1.0))) * 2 * (height - edge)

    for tick in ticks(end):
        pen.line([(0, at(0, tick)[1]), (paper.width, at(0, tick)[1])], _FAINT, 2)
    for place, interval in enumerate(intervals or ()):
        pen.line([at(place, value) for value in interval], colours[-1], 2)
        for x, y in (at(place, value) for value in interval):
            pen.line([(x - 6, y), (x + 6, y)], colours[-1], 2)
    for values, shade in zip(drawn.values(), colours, strict=True):
        places = [at(place, y) if math.isfinite(y) else None for place, y in enumerate(values)]
        _line(pen, places, shade, radius=5)
    field = _halved(paper)
    area, _ = _paper(field.width + 24 + longest_name(drawn), height)
    area.paste(field)
    draw_legend(area, field.width + 2, 4, list(zip(drawn, colours, strict=True))[::-1])
    heights = {tick: at(0, tick)[1] / 2 for tick in ticks(end)}
    return with_axes(area, names_below(names, step), ylabel, heights, margin=0)


def confusion_matrix(counts: Int[Tensor, "k k"], classes: Sequence[str]) -> RGB:
    """True classes as rows, predicted ones as columns; brightness is the share of the true class.

    The numbers are counts.

    Raises:
        ValueError: there is not one name for each class.
    """
    if len(classes) != len(counts):
        raise ValueError(f"wanted a name for each of {len(counts)} classes, got {len(classes)}")
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    cell = max(4, min(34, 680 // len(classes)))
    paper = to_pil(enlarged(heat(shares, top=1.0), side=cell * len(classes)))
    pen = ImageDraw.Draw(paper)
    for row, column in counts.nonzero().tolist() if cell >= 20 else ():
        ink = INK if shares[row, column] < 0.6 else (0, 0, 0)
        middle = (column * cell + cell / 2, row * cell + cell / 2)
        pen.text(middle, str(int(counts[row, column])), ink, font=font(), anchor="mm")
    return _with_class_names(paper, classes, cell)


def colour(number: int) -> str:
    """The colour of a class or line; they repeat after ten, a little darker."""
    base = _PALETTE[number % len(_PALETTE)]
    fade = 0.75 ** (number // len(_PALETTE) % 3)
    return "#" + "".join(f"{int(int(base[i : i + 2], 16) * fade):02x}" for i in (1, 3, 5))


def ticks(end: float) -> list[float]:
    """Round numbers from 0 to at most `end`, three to eight of them."""
    power = 10.0 ** math.floor(math.log10(end))
    step = next(step * power for step in (0.2, 0.5, 1, 2) if end / (step * power) <= 7)
    return [float(f"{k * step:.6g}") for k in range(math.floor(end / step * (1 + 1e-9)) + 1)]


def _paper(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    paper = Image.new("RGB", (width, height), BACKGROUND)
    return paper, ImageDraw.Draw(paper)


def _halved(paper: Image.Image) -> Image.Image:
    """Drawn at twice the size and shrunk: smooth edges."""
    return paper.resize((paper.width // 2, paper.height // 2), Image.Resampling.BOX)


def _line(
    pen: ImageDraw.ImageDraw, places: Sequence[tuple[float, float] | None], fill: Colour, *, radius: float
) -> None:
    for place, following in zip(places, [*places[1:], None], strict=True):
        if place and following:
            pen.line([place, following], fill, 4)
        if place:
            dot(pen, place, radius, fill)


def with_axes(
    area: Image.Image, below: Image.Image, ylabel: str, heights: Mapping[float, float], *, margin: int = 16
) -> RGB:
    """The area with numbers to the left at their heights, its label above, and what belongs below it.

    `below` juts out by `margin` on both sides.
    """
    left, above = max(margin, 8 + longest_name([f"{tick:g}" for tick in heights])), LINE + 6
    paper, pen = _paper(left + area.width + margin, above + area.height + below.height)
    paper.paste(area, (left, above))
    paper.paste(below, (left - margin, above + area.height))
    pen.text((2, 0), cut(ylabel, paper.width - 4), INK, font=font())
    for tick, height in heights.items():
        pen.text((left - 5, above + height), f"{tick:g}", INK, font=font(), anchor="rm")
    return from_pil(paper)


def upright_name(name: str, length: int) -> Image.Image:
    """A name to be read from below."""
    label, pen = _paper(length, LINE)
    pen.text((length - 2, 0), name, INK, font=font(), anchor="ra")
    return label.rotate(90, expand=True)


def names_below(names: Sequence[str], step: int) -> Image.Image:
    """Names a step apart, turned upright where they are long, and only some where they are many."""
    longest = 6 + longest_name(names)
    if longest <= step:
        paper, pen = _paper(step * len(names), LINE + 4)
        for place, name in enumerate(names):
            pen.text((place * step + step / 2, 2), name, INK, font=font(), anchor="mt")
        return paper
    paper, _ = _paper(step * len(names), longest + 2)
    for place in range(0, len(names), -(-LINE // step)):
        label = upright_name(cut(names[place], LONGEST), longest)
        paper.paste(label, (place * step + (step - LINE) // 2, 2))
    return paper


def _with_class_names(cells: Image.Image, classes: Sequence[str], cell: int) -> RGB:
    """The matrix with true names to the left, predicted ones above, turned upright where they are long."""
    if cell < LINE:
        return from_pil(cells)
    names = [cut(name, 110) for name in classes]
    longest = 6 + longest_name(names)
    upright = longest > cell
    left, top = LINE + longest, LINE + (longest if upright else LINE)
    paper, pen = _paper(left + cells.width, top + cells.height)
    paper.paste(cells, (left, top))
    for place, name in enumerate(names):
        middle = place * cell + cell // 2
        pen.text((left - 4, top + middle), name, INK, font=font(), anchor="rm")
        if upright:
            paper.paste(upright_name(name, longest), (left + middle - LINE // 2, LINE))
        else:
            pen.text((left + middle, top - LINE // 2), name, INK, font=font(), anchor="mm")
    pen.text((left, 0), "predicted", INK, font=font())
    paper.paste(upright_name("true", cells.height), (0, top))
    return from_pil(paper)
