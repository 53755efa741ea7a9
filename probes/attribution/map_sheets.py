"""Sheets of attribution maps: images in rows, methods in columns, and a scale for each column."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attribution.caption_lines import caption_lines
from fulgurite.probes.attribution.render_maps import Look, coloured, drawn_values, look_of, sized
from fulgurite.probes.colours import Kind, common_top, picture, scale_bar, short_number
from fulgurite.probes.drawing import RGB, Drawing
from fulgurite.probes.render import blank, broken, captioned, grid, noted, sheet, stacked
from fulgurite.probes.style import LINE, theme

ROUNDING = 1e-4
"""A map whose absolute values sum to less explains a smaller change of score: it is only rounding."""
RED = "captions in red: misclassified"
Scale = Literal["column", "tile"]
SCALE, STRONGEST = "scale", "strongest values"
"""Names of `scale_strip` and `strongest_strip` among the rows of a film."""
KINDS: Mapping[str, Kind] = {"over": "over", "signed": "signed", "colour": "grey", "heat": "magnitude"}
WORDS: Mapping[str, str] = {
    "over": "over the image: orange raises the score, blue lowers it",
    "signed": "orange raises the score, blue lowers it (channels summed)",
    "colour": "each colour channel by itself, mid-grey is 0",
    "heat": "magnitude: the largest absolute value of the channels",
    "both": "orange raises the score, blue lowers it: over the image, or by itself (channels summed)",
}
"""What the colours of each look mean; "both" where maps are "over" the image and "signed"."""


@dataclass(frozen=True)
class MapRow:
    """An image and its maps.

    Args:
        image: what the maps are of, in [0, 1].
        maps: by method, raw and signed; of any size.
        caption: below the image; each line of it is one.
        wrong: the image is misclassified: the caption is in the colour of errors.
        notes: lines below the map of a method.
        others: further pictures in the row.
        of: a last line below the image: what is explained, where the caption does not say so.
    """

    image: Float[Tensor, "c h w"]
    maps: Mapping[str, Float[Tensor, "_ _ _"]]
    caption: str = ""
    wrong: bool = False
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    others: Sequence[RGB] = ()
    of: str = ""

    def kept(self, side: int) -> "MapRow":
        """A copy to be shown later: on the CPU, detached, with maps no larger than a tile needs."""
        maps = {name: reduced(values.detach().float(), side).cpu() for name, values in self.maps.items()}
        return replace(self, image=self.image.detach().cpu(), maps=maps)


def map_sheet(
    rows: Mapping[str, MapRow],
    *,
    look: Look = "auto",
    looks: Mapping[str, Look] | None = None,
    tops: Mapping[str, float] | None = None,
    scale: Scale = "column",
    side: int = 112,
    others: Sequence[str] = (),
    blocks: int = 1,
    words: Mapping[str, str] = WORDS,
) -> RGB:
    """A sheet with a row for each image: the image, and its maps, on one scale for each column.

    Maps of a method are on one scale, which is below their column, so that a weak map looks weak; maps of
    different methods have different units. A map that is 0 everywhere, or rounding, is left blank; a method
    without any other map is left out, with a note; a block of rows has no column without maps.

    Args:
        rows: by name, such as the file of the image. A method that a row has no map of leaves a gap there.
        look: of all maps; what suits each method without it.
        looks: of a column by its name, before `look`.
        tops: the end of a column's scale; that of its strongest map, without the outermost 0.5 % of its
            pixels, by default.
        scale: "column", or "tile" for a scale of its own for each map, which shows weak maps as well.
        side: of a tile, about, in pixels.
        others: the names of the `others` of the rows.
        blocks: columns of rows, side by side.
        words: what the colours of each look mean.

    Raises:
        ValueError: no rows, or a scale that is neither.
    """
    if not rows:
        raise ValueError("no rows; wanted at least one image")
    check_scale(scale)
    names = list(dict.fromkeys(name for row in rows.values() for name in row.maps))
    chosen: dict[str, Look] = {name: (looks or {}).get(name) or look_of(name, look) for name in names}
    shown = [name for name in names if any(_tells(row.maps.get(name)) for row in rows.values())]
    ends = {name: (tops or {}).get(name) or scale_end(rows, name, chosen[name]) for name in shown}
    share, keys, parts = -(-len(rows) // max(1, blocks)), list(rows), []
    for start in range(0, len(keys), share):
        part = {key: rows[key] for key in keys[start : start + share]}
        own = [name for name in shown if any(name in row.maps for row in part.values())]
        cells = {key: _tiles(row, own, chosen, ends, scale, side) for key, row in part.items()}
        foot = [None, *(None if scale == "tile" else _foot(chosen[n], ends[n], cells) for n in own)]
        columns = ["", *(name.replace("_", " ") for name in own), *others]
        parts.append(sheet(cells, columns=columns, foot=foot))
    paper = parts[0] if len(parts) == 1 else grid(parts, columns=len(parts), gap=10)
    return noted(paper, *_notes(rows, names, shown, legend((chosen[name] for name in shown), words), scale))


def legend(looks: Iterable[Look], words: Mapping[str, str] = WORDS) -> list[str]:
    """What the colours of these looks mean, in a line for each that differs."""
    found = dict.fromkeys(looks)
    if {"over", "signed"} <= found.keys() and "both" in words:
        return [words["both"], *legend([look for look in found if look not in ("over", "signed")], words)]
    return list(dict.fromkeys(words[look] for look in found))


def map_strips(
    rows: Mapping[str, MapRow],
    *,
    looks: Mapping[str, Look] | None = None,
    tops: Mapping[str, float] | None = None,
    side: int = 112,
) -> dict[str, RGB]:
    """The maps of each row side by side, as on the sheet, above the prediction and what is explained."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row.maps))
    chosen: dict[str, Look] = {name: (looks or {}).get(name) or look_of(name) for name in names}
    ends = {name: (tops or {}).get(name) or scale_end(rows, name, chosen[name]) for name in names}
    strips = {}
    for key, row in rows.items():
        _, *tiles = _tiles(row, names, chosen, ends, "column", side)
        strip = grid(tiles, columns=len(tiles), gap=1)
        printed = (row.caption.split("\n")[-1], row.of)
        lines = [part for line in printed if line for part in caption_lines(line, strip.shape[2] - 3)]
        strips[key] = captioned(strip, *lines, ink=theme().error if row.wrong else None)
    return strips


def scale_strip(ends: Mapping[str, float], looks: Mapping[str, Look], width: int) -> RGB:
    """The scales of the maps of a strip, each below its map, under its name if there are several."""
    step = (width - 1) // len(ends)  # from tile to tile
    bars = {n: scale_bar(KINDS[looks[n]], ends[n], width=max(16, step - 9), below=True) for n in ends}
    paper, above = _named(list(ends), step, width, max(bar.shape[1] for bar in bars.values()))
    for place, bar in enumerate(bars.values()):
        paper.put((5 + place * step, above), bar)
    return paper.pixels()


def strongest_strip(values: Mapping[str, float], width: int) -> RGB:
    """The strongest values of the maps of a strip below them, under their names if there are several."""
    step = (width - 1) // len(values)
    paper, above = _named(list(values), step, width, LINE)
    for place, value in enumerate(values.values()):
        paper.text((3 + place * step, above), f"max {short_number(value)}")
    return paper.pixels()


def _named(names: Sequence[str], step: int, width: int, height: int) -> tuple[Drawing, int]:
    """Paper with the names of several methods, and where it is empty below them."""
    heads = [broken(name.replace("_", " "), step - 4) if len(names) > 1 else [] for name in names]
    above = LINE * max(len(lines) for lines in heads)
    paper = Drawing(width, above + height)
    for place, lines in enumerate(heads):
        for line, words in enumerate(lines):
            paper.text((3 + place * step, above - (len(lines) - line) * LINE), words)
    return paper, above


def titled_scales(ends: Mapping[str, float], looks: Mapping[str, Look]) -> RGB:
    """The scale of each method, with its name."""
    return stacked(
        [scale_bar(KINDS[looks[name]], end, name.replace("_", " ")) for name, end in ends.items()], gap=0
    )


def reduced(values: Float[Tensor, "_ h w"], side: int) -> Float[Tensor, "_ h2 w2"]:
    """The map no smaller than `side`, by the value of the largest size in each block of pixels."""
    factor = min(values.shape[1:]) // max(1, side)
    if factor < 2:
        return values
    up, down = (sign * F.max_pool2d(sign * values[None], factor)[0] for sign in (1, -1))
    return up.where(up >= -down, down)


def _tells(values: Tensor | None) -> bool:
    """Whether a map shows more than rounding."""
    return values is not None and not bool(values.abs().sum() <= ROUNDING)  # NaN is shown


def scale_end(rows: Mapping[str, MapRow], name: str, look: Look) -> float:
    """The end of the scale of a method's maps: that of the strongest, without the outermost 0.5 %."""
    own = [drawn_values(row.maps[name], look) for row in rows.values() if _tells(row.maps.get(name))]
    return common_top(own)


def _tiles(
    row: MapRow,
    shown: Sequence[str],
    looks: Mapping[str, Look],
    ends: Mapping[str, float],
    scale: Scale,
    side: int,
) -> list[RGB]:
    image = sized(picture(row.image), side)
    ink = theme().error if row.wrong else None
    width = image.shape[2] - 3
    lines = [caption_lines(line, width) for line in [*row.caption.split("\n"), row.of] if line]
    tiles = [captioned(image, *(part for own in lines for part in own), ink=ink)]
    for name in shown:
        values = row.maps.get(name)
        if values is None:
            tiles.append(blank(*image.shape[1:]))
            continue
        values = drawn_values(values if _tells(values) else 0 * values, looks[name])
        top = common_top([values]) if scale == "tile" else ends[name]
        tile = sized(coloured(looks[name], row.image, values, top), side)
        notes = [part for line in row.notes.get(name, ()) for part in broken(line, tile.shape[2] - 3)]
        tiles.append(captioned(tile, *notes))
    return [*tiles, *row.others]


def _foot(look: Look, top: float, cells: Mapping[str, Sequence[RGB]]) -> RGB:
    width = max(tiles[0].shape[2] for tiles in cells.values())
    return scale_bar(KINDS[look], top, width=max(16, width - 8), below=True)


def _notes(
    rows: Mapping[str, MapRow],
    names: Sequence[str],
    shown: Sequence[str],
    words: Sequence[str],
    scale: Scale,
) -> list[str]:
    lines = list(words)
    if scale == "tile" and shown:
        lines.append("each map has its own scale")
    if gone := [name.replace("_", " ") for name in names if name not in shown]:
        lines.append(f"left out: {', '.join(gone)}, 0 everywhere but for rounding")
    if any(row.wrong for row in rows.values()):
        lines.append(RED)
    return lines


def check_scale(scale: Scale) -> Scale:
    """A scale.

    Raises:
        ValueError: it is neither.
    """
    if scale not in ("column", "tile"):
        raise ValueError(f'scale={scale!r}; wanted "column" or "tile"')
    return scale
