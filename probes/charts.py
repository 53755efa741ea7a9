"""Numbers as pictures: points by class, and who was taken for whom."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from torch import Tensor

from fulgurite.probes.render import GROUND, INK, LINE, RGB, cut, enlarged, font, from_pil, heat, to_pil

_COLOURS = [
    "#4c9be8",
    "#f28e2b",
    "#59c15a",
    "#e15759",
    "#b07aa1",
    "#c49a6c",
    "#ff9da7",
    "#a0a6ad",
    "#e3d04b",
    "#4fd6d0",
]


def scatter(
    points: Float[Tensor, "n 2"], labels: Int[Tensor, "n"], classes: Sequence[str], *, side: int = 480
) -> RGB:
    """Points in the plane, coloured by class, with a legend of up to twenty classes."""
    twice = 2 * side  # drawn at twice the size and shrunk: smooth edges
    low, high = points.amin(0), points.amax(0)
    places = (0.03 + 0.94 * (points - low) / (high - low).clamp(min=1e-12)) * twice
    paper = Image.new("RGB", (twice, twice), GROUND)
    pen = ImageDraw.Draw(paper)
    for (x, y), label in zip(places.tolist(), labels.tolist(), strict=True):
        pen.ellipse([x - 5, twice - y - 5, x + 5, twice - y + 5], fill=colour(label))
    plot = paper.resize((side, side), Image.Resampling.BOX)
    shown = [label for label in range(len(classes)) if bool((labels == label).any())][:20]
    return torch.cat([from_pil(plot), _legend([(colour(label), classes[label]) for label in shown], side)], 2)


def confusion(counts: Int[Tensor, "k k"], classes: Sequence[str]) -> RGB:
    """True classes as rows, predicted ones as columns; brightness is the share of the true class.

    The numbers are counts.

    Raises:
        ValueError: there is not one name for each class.
    """
    if len(classes) != len(counts):
        raise ValueError(f"wanted a name for each of {len(counts)} classes, got {len(classes)}")
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    cell = max(4, min(34, 680 // len(classes)))
    cells = enlarged(heat(shares, top=1.0), side=cell * len(classes))
    paper = to_pil(cells)
    pen = ImageDraw.Draw(paper)
    if cell >= 20:
        for row, line in enumerate(counts.tolist()):
            for column, count in enumerate(line):
                ink = INK if shares[row, column] < 0.6 else (0, 0, 0)
                if count:
                    pen.text(
                        (column * cell + cell / 2, row * cell + cell / 2),
                        str(count),
                        ink,
                        font=font(),
                        anchor="mm",
                    )
    return _with_names(paper, classes, cell)


def colour(label: int) -> str:
    """The colour of a class; they repeat after ten, a little darker."""
    base = _COLOURS[label % len(_COLOURS)]
    fade = 0.75 ** (label // len(_COLOURS) % 3)
    return "#" + "".join(f"{int(int(base[i : i + 2], 16) * fade):02x}" for i in (1, 3, 5))


def _legend(entries: Sequence[tuple[str, str]], height: int) -> RGB:
    width = 20 + max((int(font().getlength(cut(name, 120))) for _, name in entries), default=0)
    paper = Image.new("RGB", (width, height), GROUND)
    pen = ImageDraw.Draw(paper)
    for row, (fill, name) in enumerate(entries):
        top = 6 + row * (LINE + 4)
        pen.ellipse([4, top + 3, 12, top + 11], fill=fill)
        pen.text((16, top), cut(name, 120), INK, font=font())
    return from_pil(paper)


def _with_names(cells: Image.Image, classes: Sequence[str], cell: int) -> RGB:
    """The matrix with true names to the left, predicted ones above, turned upright where they are long."""
    if cell < LINE:
        return from_pil(cells)
    names = [cut(name, 110) for name in classes]
    longest = 6 + max(int(font().getlength(name)) for name in names)
    upright = longest > cell
    top = LINE + (longest if upright else LINE)
    paper = Image.new("RGB", (LINE + longest + cells.width, top + cells.height), GROUND)
    paper.paste(cells, (LINE + longest, top))
    pen = ImageDraw.Draw(paper)
    for place, name in enumerate(names):
        pen.text((LINE + longest - 4, top + place * cell + cell / 2), name, INK, font=font(), anchor="rm")
        middle = LINE + longest + place * cell + cell // 2
        if upright:
            label = Image.new("RGB", (longest, LINE), GROUND)
            ImageDraw.Draw(label).text((2, 0), name, INK, font=font())
            paper.paste(label.rotate(90, expand=True), (middle - LINE // 2, LINE))
        else:
            pen.text((middle, top - LINE // 2), name, INK, font=font(), anchor="mm")
    pen.text((LINE + longest, 0), "predicted", INK, font=font())
    aside = Image.new("RGB", (cells.height, LINE), GROUND)
    ImageDraw.Draw(aside).text((cells.height - 2, 0), "true", INK, font=font(), anchor="ra")
    paper.paste(aside.rotate(90, expand=True), (0, top))
    return from_pil(paper)
