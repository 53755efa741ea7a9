"""Layout of pictures: tiles, grids, captions, titles and sheets, as 8-bit RGB, and as files.

Colours are in `colours`, themes and sizes in `style`; what is drawn here can also be written as SVG or PDF.
"""

import io
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.colours import (
    common_top as common_top,
)
from fulgurite.probes.colours import (
    diverging as diverging,
)
from fulgurite.probes.colours import (
    heat as heat,
)
from fulgurite.probes.colours import (
    largest as largest,
)
from fulgurite.probes.colours import (
    overlaid as overlaid,
)
from fulgurite.probes.colours import (
    picture as picture,
)
from fulgurite.probes.colours import (
    scale_bar as scale_bar,
)
from fulgurite.probes.colours import (
    short_number as short_number,
)
from fulgurite.probes.colours import (
    signed as signed,
)
from fulgurite.probes.drawing import RGB as RGB
from fulgurite.probes.drawing import Drawing, length
from fulgurite.probes.drawing import font as font
from fulgurite.probes.style import DARK, TITLE, Colour, theme
from fulgurite.probes.style import LINE as LINE
from fulgurite.probes.vector import as_pdf, as_svg

BACKGROUND, INK = DARK.background, DARK.ink
"""Of the dark theme; `theme()` gives the current ones."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".svg", ".pdf")
"""Of files that pictures can be written to."""
ROW, COLUMN = 160, 120
"""The widest name of a row, and a column's title where tiles are narrower, in pixels."""


def enlarged(pixels: RGB, *, side: int) -> RGB:
    """Each pixel as a square block, so that the shorter side has at least about `side` pixels."""
    times = max(1, round(side / min(pixels.shape[1:])))
    return pixels.repeat_interleave(times, 1).repeat_interleave(times, 2)


def shrunk(pixels: RGB, *, side: int) -> RGB:
    """The picture made small enough that its longer side has at most `side` pixels."""
    height, width = pixels.shape[1:]
    if max(height, width) <= side:
        return pixels
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return from_pil(to_pil(pixels).resize(size, Image.Resampling.BOX))


def blank(height: int, width: int) -> RGB:
    """Paper without anything on it, of the theme's colour."""
    paper = torch.tensor(theme().background, dtype=torch.uint8)
    return paper[:, None, None].expand(3, height, width).clone()


def grid(
    tiles: Sequence[RGB], *, columns: int | None = None, gap: int = 1, between: Colour | None = None
) -> RGB:
    """Tiles in rows, each in the upper left of a cell as large as the largest; about a square by default.

    Between them is the paper, or that colour.
    """
    columns = columns or round(len(tiles) ** 0.5 + 0.49)
    height = max(tile.shape[1] for tile in tiles) + gap
    width = max(tile.shape[2] for tile in tiles) + gap
    rows = -(-len(tiles) // columns)
    paper = Drawing(columns * width + gap, rows * height + gap, between or theme().background)
    for place, tile in enumerate(tiles):
        paper.put((place % columns * width + gap, place // columns * height + gap), tile)
    return paper.pixels()


def stacked(tiles: Sequence[RGB], *, gap: int = 8) -> RGB:
    """Pictures of any width one below the other."""
    paper = Drawing(max(tile.shape[2] for tile in tiles), sum(tile.shape[1] + gap for tile in tiles) - gap)
    top = 0
    for tile in tiles:
        paper.put((0, top), tile)
        top += tile.shape[1] + gap
    return paper.pixels()


def beside(tiles: Sequence[RGB], *, gap: int = 2) -> RGB:
    """Pictures of any size side by side."""
    paper = Drawing(sum(tile.shape[2] + gap for tile in tiles) - gap, max(tile.shape[1] for tile in tiles))
    left = 0
    for tile in tiles:
        paper.put((left, 0), tile)
        left += tile.shape[2] + gap
    return paper.pixels()


def captioned(pixels: RGB, *lines: str, ink: Colour | None = None) -> RGB:
    """The picture with lines of text under it, cut to its width, in the colour of `ink`."""
    if not lines:
        return pixels
    height, width = pixels.shape[1:]
    paper = Drawing(width, height + LINE * len(lines))
    paper.put((0, 0), pixels)
    for row, line in enumerate(lines):
        paper.text((2, height + row * LINE), cut(line, width - 3), ink)
    return paper.pixels()


def noted(pixels: RGB, *notes: str, least: int = 400) -> RGB:
    """The picture with notes under it, broken into lines of its width; of `least` pixels, if that is more."""
    width = max(pixels.shape[2], least)
    lines = [line for note in notes if note for line in wrapped(note, width - 4)]
    if not lines:
        return pixels
    needed = max(pixels.shape[2], *(4 + int(length(line)) for line in lines))
    paper = Drawing(needed, pixels.shape[1] + 2 + LINE * len(lines))
    paper.put((0, 0), pixels)
    for row, line in enumerate(lines):
        paper.text((2, pixels.shape[1] + 2 + row * LINE), line)
    return paper.pixels()


def titled(pixels: RGB, title: str) -> RGB:
    """The picture under its title, which is broken into lines where it is wider than the picture."""
    if not title:
        return pixels
    lines = wrapped(title, max(pixels.shape[2], 300) - 8, size=TITLE)
    step = LINE + 4
    width = max(pixels.shape[2], *(8 + int(length(line, TITLE)) for line in lines))
    paper = Drawing(width, pixels.shape[1] + step * len(lines) + 4)
    for row, line in enumerate(lines):
        paper.text((4, 2 + row * step), line, size=TITLE)
    paper.put((0, step * len(lines) + 4), pixels)
    return paper.pixels()


def sheet(
    rows: Mapping[str, Sequence[RGB]],
    *,
    columns: Sequence[str],
    gap: int = 2,
    foot: Sequence[RGB | None] = (),
    first: Mapping[str, RGB] | None = None,
) -> RGB:
    """Pictures in rows and columns, with their names, which are broken into lines.

    Names of rows that are longer than `ROW` are broken anywhere, and are cut only where their row is too low.

    Args:
        rows: pictures by the name of their row.
        columns: their names.
        gap: between pictures, in pixels.
        foot: below each column, such as its scale.
        first: a picture of each row by its name, before the columns, which may be wider.
    """
    tiles, before = [tile for row in rows.values() for tile in row], first or {}
    wide = max(tile.shape[2] for tile in tiles) + gap
    high = [
        max(LINE, *(tile.shape[1] for tile in [*own, *([before[name]] if name in before else [])])) + gap
        for name, own in rows.items()
    ]
    named = [_fitting(broken(name, ROW), max(1, own // LINE)) for name, own in zip(rows, high, strict=True)]
    margin = 10 + max(int(length(line)) for lines in named for line in lines)
    heads = [wrapped(name, max(wide - 8, 40)) for name in columns]
    lines = max((len(head) for head in heads), default=1)
    longest = max((int(length(cut(line, COLUMN))) for head in heads for line in head), default=0)
    width, top, left = max(wide, 8 + longest), LINE * lines + gap, margin
    margin += max((own.shape[2] + 3 * gap for own in before.values()), default=0)
    below = max((own.shape[1] + 4 for own in foot if own is not None), default=0)
    paper = Drawing(margin + width * len(columns), top + sum(high) + below)
    for place, head in enumerate(heads):
        for row, line in enumerate(head):
            paper.text((margin + place * width, (lines - len(head) + row) * LINE), cut(line, width - 4))
    for row, (name, pictures) in enumerate(rows.items()):
        upper, height = top + sum(high[:row]), high[row]
        if name in before:
            paper.put((left, upper), before[name])
        for number, line in enumerate(named[row]):
            above = max(0, (height - LINE * len(named[row])) // 2)
            paper.text((2, upper + above + number * LINE), line)
        for place, tile in enumerate(pictures):
            paper.put((margin + place * width, upper), tile)
    for place, own in enumerate(foot):
        if own is not None:
            paper.put((margin + place * width, top + sum(high) + 2), own)
    return paper.pixels()


def encoded(pixels: RGB, *, how: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    """The picture as a file's bytes; JPEG at quality 90."""
    file = io.BytesIO()
    to_pil(pixels).save(file, how, **({"quality": 90} if how == "JPEG" else {}))
    return file.getvalue()


def write(pixels: RGB, path: Path) -> None:
    """Write the picture to a file, all of it or nothing; JPEG, SVG or PDF if it ends so, PNG otherwise."""
    suffix = path.suffix.lower()
    if suffix == ".svg":
        write_atomic(path, as_svg(pixels))
    elif suffix == ".pdf":
        write_atomic(path, as_pdf(pixels))
    else:
        write_atomic(path, encoded(pixels, how="JPEG" if suffix in (".jpg", ".jpeg") else "PNG"))


def decoded(file: bytes) -> RGB:
    """The picture in a file's bytes."""
    return from_pil(Image.open(io.BytesIO(file)))


def cut(line: str, width: int) -> str:
    """The line, or as much of it as fits into `width` pixels and an ellipsis; line breaks become blanks."""
    line = line.replace("\n", " ")
    if length(line) <= width:
        return line
    return line[: _letters(line, width, "…")] + "…"


def cut_start(line: str, width: int) -> str:
    """The same, with its end kept, after an ellipsis: file names often differ only at their ends."""
    return cut(line[::-1], width)[::-1]


def _letters(line: str, width: int, ending: str = "") -> int:
    """How many letters of a line fit before an ending, found by bisection."""
    fits = bisect_right(range(len(line)), width, key=lambda count: length(line[:count] + ending))
    return max(0, fits - 1)


def wrapped(words: str, width: int, *, size: int = 12) -> list[str]:
    """The words in lines of at most `width` pixels; one that is longer has a line for itself."""
    lines = [""]
    for word in words.replace("\n", " ").split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and length(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def broken(words: str, width: int) -> list[str]:
    """The words in lines of at most `width` pixels; one that is longer is broken, after a mark if it can."""
    lines = []
    for line in wrapped(words, width):
        while len(line) > 1 and length(line) > width:
            fits = max(1, _letters(line, width))
            mark = max(line.rfind(mark, fits // 2, fits) for mark in "_-./,") + 1
            lines.append(line[: mark or fits])
            line = line[mark or fits :]
        lines.append(line)
    return lines


def _fitting(lines: Sequence[str], most: int) -> list[str]:
    """This many of the lines; the last is cut if there are more."""
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], cut("".join(lines[most - 1 :]), ROW)]


def to_pil(pixels: RGB) -> Image.Image:
    """The picture as a Pillow image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def from_pil(image: Image.Image) -> RGB:
    """A Pillow image as a picture."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
