"""Matrices of values from 0 to 1 with the names of rows and columns, as 8-bit RGB."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.colours import heat, scale_bar
from fulgurite.probes.drawing import RGB, Drawing, length
from fulgurite.probes.render import cut, stacked
from fulgurite.probes.style import LINE, theme

NAME = 150  # the longest, in pixels


def matrix_plot(
    values: Float[Tensor, "p q"], rows: Sequence[str], columns: Sequence[str], *, title: str = ""
) -> RGB:
    """The values as brightness and, where cells are large enough, as numbers; magenta is not finite.

    Args:
        values: the colour of the paper for 0 and below, the far end of the scale for 1.
        rows: names, to the left.
        columns: names, above, to be read from below.
        title: above all.

    Raises:
        ValueError: there is not one name for each row and column.
    """
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"{len(rows)} and {len(columns)} names for {tuple(values.shape)} values")
    cell = max(4, min(40, 720 // max(len(rows), len(columns))))
    shades = heat(values.float(), top=1.0).repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    named = cell >= LINE
    left, above = (6 + _longest(names) if named else 0 for names in (rows, columns))
    top = (LINE + 4 if title else 0) + above
    width = max(left + shades.shape[2], int(length(title)) + 6)
    paper = Drawing(width, top + shades.shape[1])
    paper.put((left, top), shades)
    paper.text((2, 0), title)
    for place, name in enumerate(rows if named else ()):
        paper.text((left - 4, top + place * cell + cell / 2), cut(name, NAME), anchor="rm")
    for place, name in enumerate(columns if named else ()):
        own = cut(name, NAME)
        paper.text((left + (place + 0.5) * cell, top - 4 - length(own) / 2), own, upright=True)
    dark_paper = theme().background[0] < 128
    for row, own in enumerate(values.tolist() if cell >= 30 else ()):
        for column, value in enumerate(own):
            ink = (225, 225, 230) if (not value > 0.6) == dark_paper else (0, 0, 0)
            middle = (left + column * cell + cell / 2, top + row * cell + cell / 2)
            paper.text(middle, "-" if value != value else f"{value:.2f}", ink, anchor="mm")
    return stacked([paper.pixels(), scale_bar("magnitude", 1.0)], gap=4)


def _longest(names: Sequence[str]) -> int:
    return max(int(length(cut(name, NAME))) for name in names)
