"""Bars in groups, one for each name, as 8-bit RGB."""

import math
from collections.abc import Mapping, Sequence

from fulgurite.probes.axes import names_below, ticks, with_axes
from fulgurite.probes.drawing import RGB, Drawing
from fulgurite.probes.legend import draw_legend, longest_name
from fulgurite.probes.render import titled
from fulgurite.probes.style import colour, theme


def bar_plot(
    names: Sequence[str],
    bars: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    ymax: float | None = None,
    width: int = 12,
    title: str = "",
) -> RGB:
    """Groups of bars over an axis that begins at 0, and a legend of their colours.

    Args:
        names: of the groups, from left to right.
        bars: a value for each group, by the bars' own name; what is not finite leaves a gap.
        ylabel: what the values are.
        ymax: where the axis ends; at the largest value without it.
        width: of a bar, in pixels.
        title: above it.

    Raises:
        ValueError: no names, no bars, or bars that have not one value for each name.
    """
    if not names or not bars:
        raise ValueError(f"{len(names)} names and {len(bars)} bars; wanted at least one of both")
    if wrong := [name for name, values in bars.items() if len(values) != len(names)]:
        raise ValueError(f"bars {wrong[0]!r} have {len(bars[wrong[0]])} values for {len(names)} names")
    known = [value for values in bars.values() for value in values if math.isfinite(value)]
    end = ymax or 1.04 * max(known, default=0.0) or 1.0
    step, height = width * (len(bars) + 1), 200
    area = Drawing(step * len(names) + 24 + longest_name(bars), height)
    heights = {tick: height - 1 - tick / end * (height - 7) for tick in ticks(end)}
    for place in heights.values():
        area.line([(0, place), (step * len(names), place)], theme().faint)
    for number, values in enumerate(bars.values()):
        for place, value in enumerate(values):
            if math.isfinite(value):
                left = place * step + width // 2 + number * width
                top = height - 1 - max(0.0, min(value / end, 1.0)) * (height - 7)
                right, base = left + width - 1, height
                area.area([(left, top), (right, top), (right, base), (left, base)], colour(number))
    draw_legend(area, step * len(names) + 6, 4, [(name, colour(n)) for n, name in enumerate(bars)])
    return titled(with_axes(area.pixels(), names_below(names, step), ylabel, heights, margin=0), title)
