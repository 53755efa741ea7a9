"""Values of named things in their order, such as layers: one line for each look, the newest the brightest."""

import math
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw

from fulgurite.probes.plot import FAINT, ticks
from fulgurite.probes.render import GROUND, INK, LINE, RGB, cut, font, from_pil, heat

HIGH = 200
_LONGEST = 120
_EDGE = 6  # above and below the axis, in half pixels


def profile(
    names: Sequence[str],
    lines: Mapping[str, Sequence[float]],
    *,
    up: str,
    top: float | None = None,
    spans: Sequence[tuple[float, float]] | None = None,
    most: int = 8,
) -> RGB:
    """Lines over names, from dark for the first to bright for the last.

    Args:
        names: what the values are of, from left to right.
        lines: a value for each name, by the line's own name; what is not finite leaves a gap.
        up: what the values are.
        top: where the axis, which begins at 0, ends; at the largest value without it.
        spans: from where to where each value of the last line may lie.
        most: lines drawn: the first, the last, and others evenly between them.

    Raises:
        ValueError: no names, no lines, or a line that has not one value for each name.
    """
    if not names or not lines:
        raise ValueError(f"{len(names)} names and {len(lines)} lines; wanted at least one of both")
    if wrong := [name for name, values in lines.items() if len(values) != len(names)]:
        raise ValueError(f"line {wrong[0]!r} has {len(lines[wrong[0]])} values for {len(names)} names")
    chosen = {name: lines[name] for name in _thinned(list(lines), most)}
    known = [
        value for values in [*chosen.values(), *(spans or ())] for value in values if math.isfinite(value)
    ]
    end = top or 1.04 * max(known, default=0.0) or 1.0
    shades = torch.linspace(1.0, 0.35, len(chosen)).flip(0)  # one alone is bright
    colours = [tuple(colour) for colour in heat(shades[None], top=1.0)[:, 0].T.tolist()]
    step = max(8, min(90, 560 // len(names)))
    field = _field(list(chosen.values()), colours, end, step, spans)
    stops = ticks(end)
    left = 8 + max(int(font().getlength(f"{stop:g}")) for stop in stops)
    below = _below(names, step)
    aside = 24 + max(int(font().getlength(cut(name, _LONGEST))) for name in chosen)
    paper = Image.new("RGB", (left + field.width + aside, LINE + 6 + HIGH + below.height), GROUND)
    paper.paste(field, (left, LINE + 6))
    paper.paste(below, (left, LINE + 6 + HIGH))
    pen = ImageDraw.Draw(paper)
    pen.text((2, 0), cut(up, paper.width - 4), INK, font=font())
    for stop in stops:
        middle = LINE + 6 + _EDGE / 2 + (1 - stop / end) * (HIGH - _EDGE)
        pen.text((left - 5, middle), f"{stop:g}", INK, font=font(), anchor="rm")
    for place, (name, colour) in enumerate(reversed(list(zip(chosen, colours, strict=True)))):
        line = LINE + 12 + place * (LINE + 2)
        pen.rectangle([left + field.width + 6, line + 4, left + field.width + 14, line + 6], fill=colour)
        pen.text((left + field.width + 19, line), cut(name, _LONGEST), INK, font=font())
    return from_pil(paper)


def _thinned(names: list[str], most: int) -> list[str]:
    if len(names) <= most:
        return names
    return [names[round(place * (len(names) - 1) / (most - 1))] for place in range(most)]


def _field(
    lines: Sequence[Sequence[float]],
    colours: Sequence[tuple[int, ...]],
    end: float,
    step: int,
    spans: Sequence[tuple[float, float]] | None,
) -> Image.Image:
    wide, high = 2 * step * len(lines[0]), 2 * HIGH  # drawn at twice the size and shrunk: smooth lines

    def at(place: int, value: float) -> tuple[float, float]:
        return (2 * place + 1) * step, _EDGE + (1 - max(0.0, min(value / end, 1.0))) * (high - 2 * _EDGE)

    paper = Image.new("RGB", (wide, high), GROUND)
    pen = ImageDraw.Draw(paper)
    for stop in ticks(end):
        pen.line([(0, at(0, stop)[1]), (wide, at(0, stop)[1])], FAINT, 2)
    for place, (low, upper) in enumerate(spans or ()):
        pen.line([at(place, low), at(place, upper)], colours[-1], 2)
        for value in (low, upper):
            x, y = at(place, value)
            pen.line([(x - 6, y), (x + 6, y)], colours[-1], 2)
    for values, colour in zip(lines, colours, strict=True):
        dots = [at(place, value) if math.isfinite(value) else None for place, value in enumerate(values)]
        for dot, after in zip(dots, [*dots[1:], None], strict=True):
            if dot and after:
                pen.line([dot, after], colour, 4)
            if dot:
                pen.ellipse([dot[0] - 5, dot[1] - 5, dot[0] + 5, dot[1] + 5], colour)
    return paper.resize((wide // 2, high // 2), Image.Resampling.BOX)


def _below(names: Sequence[str], step: int) -> Image.Image:
    """The names, turned upright where they are long, and every so-manieth where they are many."""
    longest = 6 + max(int(font().getlength(cut(name, _LONGEST))) for name in names)
    if longest <= step:
        paper = Image.new("RGB", (step * len(names), LINE + 4), GROUND)
        for place, name in enumerate(names):
            middle = (place * step + step / 2, 2)
            ImageDraw.Draw(paper).text(middle, name, INK, font=font(), anchor="mt")
        return paper
    paper = Image.new("RGB", (step * len(names), longest + 2), GROUND)
    for place in range(0, len(names), -(-LINE // step)):
        label = Image.new("RGB", (longest, LINE), GROUND)
        ImageDraw.Draw(label).text(
            (longest - 2, 0), cut(names[place], _LONGEST), INK, font=font(), anchor="ra"
        )
        paper.paste(label.rotate(90, expand=True), (place * step + (step - LINE) // 2, 2))
    return paper
