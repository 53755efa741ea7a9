"""Matrices of values from 0 to 1 with the names of rows and columns, as 8-bit RGB."""

from collections.abc import Sequence

from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from fulgurite.probes.plots import upright_name
from fulgurite.probes.render import BACKGROUND, INK, LINE, RGB, cut, font, from_pil, heat, to_pil

NAME = 150  # the longest, in pixels


def matrix_plot(
    values: Float[Tensor, "p q"], rows: Sequence[str], columns: Sequence[str], *, title: str = ""
) -> RGB:
    """The values as brightness and, where cells are large enough, as numbers; magenta is not finite.

    Args:
        values: black for 0 and below, bright for 1.
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
    width = max(left + shades.shape[2], int(font().getlength(title)) + 6)
    paper = Image.new("RGB", (width, top + shades.shape[1]), BACKGROUND)
    pen = ImageDraw.Draw(paper)
    paper.paste(to_pil(shades), (left, top))
    pen.text((2, 0), title, INK, font=font())
    for place, name in enumerate(rows if named else ()):
        pen.text((left - 4, top + place * cell + cell / 2), cut(name, NAME), INK, font=font(), anchor="rm")
    for place, name in enumerate(columns if named else ()):
        label = upright_name(cut(name, NAME), above)
        paper.paste(label, (left + place * cell + (cell - LINE) // 2, top - above))
    for row, own in enumerate(values.tolist() if cell >= 30 else ()):
        for column, value in enumerate(own):
            ink = INK if not value > 0.6 else (0, 0, 0)
            middle = (left + column * cell + cell / 2, top + row * cell + cell / 2)
            pen.text(middle, "-" if value != value else f"{value:.2f}", ink, font=font(), anchor="mm")
    return from_pil(paper)


def _longest(names: Sequence[str]) -> int:
    return max(int(font().getlength(cut(name, NAME))) for name in names)
