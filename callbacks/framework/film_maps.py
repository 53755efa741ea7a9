"""Maps in films: kept as values at each look, and drawn at the end, when the strongest of all is known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fulgurite.callbacks.framework.film_files import packed, unpacked
from fulgurite.probes.attribution.map_sheets import (
    RED,
    SCALE,
    STRONGEST,
    WORDS,
    MapRow,
    legend,
    map_strips,
    scale_end,
    scale_strip,
    strongest_strip,
    titled_scales,
)
from fulgurite.probes.attribution.render_maps import Look, drawn_values, look_of, sized
from fulgurite.probes.render import RGB, broken, captioned, picture, shrunk

FilmScale = Literal["film", "epoch"]
NOTES: Mapping[FilmScale, str] = {
    "film": "one scale for all epochs, so that their strengths can be compared; max: an epoch's strongest "
    "value (99.5th percentile of pixels)",
    "epoch": "each epoch has its own scale, below its maps: colours do not show whether maps grow",
}
"""What a film says of the scale of its maps."""
LEVELS = 127


@dataclass(frozen=True)
class FilmMaps:
    """An image and its maps at one look.

    Args:
        row: the image, the values that are drawn, and the prediction.
        looks: of each map.
        strongest: of each map, where its scale would end if it were that of this look alone.
        truth: a line below the image.
        which: a line below the film, of which class its maps are.
        words: what the colours of each look mean.
    """

    row: MapRow
    looks: Mapping[str, Look]
    strongest: Mapping[str, float]
    truth: str = ""
    which: str = ""
    words: Mapping[str, str] = field(default_factory=lambda: WORDS)

    def image(self, side: int) -> RGB:
        """The image above its true class."""
        shown = sized(picture(self.row.image), side)
        return captioned(shown, *(broken(self.truth, shown.shape[2] - 3) if self.truth else []))

    def kept(self) -> dict[str, Any]:
        """The maps in plain types, in 127 levels of either sign; without the image, which does not change."""
        levels = {name: _levels(own, self.strongest[name]) for name, own in self.row.maps.items()}
        own = {"caption": self.row.caption, "of": self.row.of, "wrong": self.row.wrong, "truth": self.truth}
        own |= {"which": self.which, "words": dict(self.words)}
        return {"levels": levels, "looks": dict(self.looks), "strongest": dict(self.strongest), **own}


def check_scale(scale: FilmScale) -> FilmScale:
    """The scale of a film.

    Raises:
        ValueError: it is none.
    """
    if scale not in get_args(FilmScale):
        raise ValueError(f'film_scale={scale!r}; wanted "film" or "epoch"')
    return scale


def film_maps(
    rows: Mapping[str, MapRow],
    truths: Mapping[str, str],
    *,
    side: int,
    looks: Mapping[str, Look] | None = None,
    which: str = "",
    words: Mapping[str, str] = WORDS,
) -> dict[str, FilmMaps]:
    """What a film keeps of these rows at one look.

    Args:
        rows: by name.
        truths: a line below the image of a row, such as its true class.
        side: of a tile, about, in pixels.
        looks: of a map by its name; what suits it by default.
        which: a line below the film, of which class its maps are.
        words: what the colours of each look mean.
    """
    names = list(dict.fromkeys(name for row in rows.values() for name in row.maps))
    chosen: dict[str, Look] = {name: (looks or {}).get(name) or look_of(name) for name in names}
    ends = {name: scale_end(rows, name, chosen[name]) for name in names}
    found = {}
    for key, row in rows.items():
        maps = {name: drawn_values(values, chosen[name]) for name, values in row.maps.items()}
        small = shrunk(picture(row.image), side=side).float() / 255
        own = {name: ends[name] for name in maps}
        found[key] = FilmMaps(
            replace(row, image=small, maps=maps), chosen, own, truths.get(key, ""), which, words
        )
    return found


def opened_maps(kept: Any, image: RGB | None) -> FilmMaps | None:
    """The maps that `kept` returned; None if they are damaged, or their image is."""
    if image is None:
        return None
    try:
        strongest = {str(name): float(value) for name, value in kept["strongest"].items()}
        looks: dict[str, Look] = {
            str(name): look for name, look in kept["looks"].items() if look in get_args(Look)
        }
        maps = {name: _values(file, strongest[name]) for name, file in kept["levels"].items()}
        caption, of, truth = (str(kept[name]) for name in ("caption", "of", "truth"))
        wrong, which = bool(kept["wrong"]), str(kept.get("which", ""))
        words = {**WORDS} | {str(look): str(line) for look, line in kept.get("words", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    complete = maps.keys() <= looks.keys() and all(math.isfinite(value) for value in strongest.values())
    row = MapRow(image.float() / 255, {name: own for name, own in maps.items() if own is not None}, caption)
    if not complete or not maps or len(row.maps) < len(maps):
        return None
    return FilmMaps(replace(row, of=of, wrong=wrong), looks, strongest, truth, which, words)


@dataclass(frozen=True)
class DrawnMaps:
    """The pictures of each look by row, the image of each row, the scales that all looks share, and notes."""

    looks: Sequence[Mapping[str, RGB]]
    images: Mapping[str, RGB]
    scales: RGB | None
    notes: Sequence[str]


def draw_maps(looks: Sequence[Mapping[str, FilmMaps]], *, scale: FilmScale, side: int) -> DrawnMaps:
    """The maps of all looks, each method on one scale for the film, or for each epoch.

    Below the maps of a look are its scales, or, where all looks share them, its strongest values.
    """
    every = [own for look in looks for own in look.values()]
    if not every:
        return DrawnMaps([{} for _ in looks], {}, None, [])
    names = list(dict.fromkeys(name for own in every for name in own.row.maps))
    kinds: dict[str, Look] = {name: own.looks[name] for own in every for name in own.row.maps}
    ends = {name: max(own.strongest.get(name, 0.0) for own in every) for name in names}
    pictures = []
    for look in looks:
        if not look:
            pictures.append({})
            continue
        first = next(iter(look.values()))
        tops = ends if scale == "film" else {name: first.strongest.get(name, 0.0) for name in names}
        rows = {key: own.row for key, own in look.items()}
        strips = map_strips(rows, looks=kinds, tops=tops, side=side)
        width = next(iter(strips.values())).shape[2]
        shown = [name for name in names if any(name in own.row.maps for own in look.values())]
        if scale == "film":
            strips[STRONGEST] = strongest_strip(
                {name: first.strongest.get(name, 0.0) for name in shown}, width
            )
        else:
            strips[SCALE] = scale_strip({name: tops[name] for name in shown}, kinds, width)
        pictures.append(strips)
    images = {key: own.image(side) for look in reversed(looks) for key, own in look.items()}
    scales = titled_scales(ends, kinds) if scale == "film" else None
    notes = [
        *dict.fromkeys(own.which for own in every if own.which),
        *legend(kinds.values(), every[-1].words),
    ]
    red = [RED] if any(own.row.wrong for own in every) else []
    return DrawnMaps(pictures, images, scales, [*notes, NOTES[scale], *red])


def _levels(values: Tensor, top: float) -> Tensor:
    """A map of one channel as a grey PNG: 128 is 0, 1 and 255 are the ends, and 0 is what is not finite."""
    part = values[0] / top if top > 0 else 0 * values[0]
    levels = (part.clamp(-1, 1) * LEVELS).round() + LEVELS + 1
    return packed(levels.where(values[0].isfinite(), 0).to(torch.uint8)[None])


def _values(file: Any, top: float) -> Tensor | None:
    pixels = unpacked(file)
    if pixels is None:
        return None
    levels = pixels[:1].float()
    return ((levels - LEVELS - 1) / LEVELS * top).where(levels > 0, torch.nan)
