"""Legend of a plot: a dot and a name for each line, where they hide the least of the lines."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.drawing import Drawing, length
from fulgurite.probes.render import cut
from fulgurite.probes.style import LINE, LONGEST, Colour

MUCH = 8  # points, of sixteen between two of a line
Points = Sequence[tuple[float, float]]


def longest_name(names: Sequence[str] | Mapping[str, object]) -> int:
    """The width of the longest of the names, as a legend shows them."""
    return max((int(length(cut(name, LONGEST))) for name in names), default=0)


def free_corner(
    lines: Mapping[str, Points],
    size: tuple[int, int],
    xmax: float,
    ymax: float,
    *,
    xmin: float = 0.0,
    ymin: float = 0.0,
) -> tuple[int, int] | None:
    """Where the legend hides the least of the lines: the upper right, if other corners are no better.

    None where it would hide much of them in any corner.
    """
    width, height = size
    wide, high = longest_name(lines) + 24, (LINE + 2) * len(lines) + 8
    corners = [(width - wide, 8), (8, 8), (width - wide, height - high), (8, height - high)]
    scale = torch.tensor([width / (xmax - xmin), height / (ymax - ymin)])
    ways = [torch.tensor([[x - xmin, ymax - y] for x, y in line]) * scale for line in lines.values()]
    passed = torch.cat([torch.cat([way, *_between(way)]) for way in ways])
    hidden = [
        int(((passed >= torch.tensor([x, y])) & (passed <= torch.tensor([x + wide, y + high]))).all(1).sum())
        for x, y in corners
    ]
    return corners[hidden.index(min(hidden))] if min(hidden) <= MUCH else None


def _between(way: Float[Tensor, "points 2"]) -> list[Float[Tensor, "points2 2"]]:
    """Points along the lines from each point to the next."""
    return [way[:-1] + (way[1:] - way[:-1]) * step / 16 for step in range(1, 16)]


def draw_legend(
    paper: Drawing,
    left: float,
    top: float,
    entries: Sequence[tuple[str, Colour]],
    *,
    spacing: int = LINE + 2,
) -> None:
    """A dot and a name for each, one below the other."""
    for row, (name, fill) in enumerate(entries):
        paper.dot((left + 8, top + row * spacing + 7), 4, fill)
        paper.text((left + 16, top + row * spacing), cut(name, LONGEST))
