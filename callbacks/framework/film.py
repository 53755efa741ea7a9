"""Film strips: pictures of a probe as rows, epochs as columns; few enough to be readable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fulgurite.callbacks.framework.animation import animated, called
from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.film_files import packed, unpacked
from fulgurite.callbacks.framework.film_maps import (
    NOTES,
    DrawnMaps,
    FilmMaps,
    FilmScale,
    draw_maps,
    opened_maps,
)
from fulgurite.probes.attribution.map_sheets import SCALE, STRONGEST
from fulgurite.probes.counted import counted
from fulgurite.probes.render import RGB, beside, blank, noted, picture, sheet, shrunk, stacked, titled
from fulgurite.probes.style import ThemeName, drawn_in, theme_name

FEWEST, MOST, WIDTH, WIDE = 3, 8, 1500, 700
"""Columns of a strip, their width in pixels, about, and the width of a picture of which two are enough."""


@dataclass(frozen=True)
class NextTo(Picture):
    """A picture of a film whose row begins with another, the same in all frames."""

    first: RGB


@dataclass(frozen=True)
class AllEpochs(Picture):
    """A chart of all epochs so far: the last one holds those before, so that a film keeps none."""


class Film:
    """Frames of a run, thinned to at most `max_frames` evenly spaced ones and the newest.

    Of maps it keeps the values, and draws them next to their images, on one scale for the film. Charts that
    hold all epochs so far (`AllEpochs`) are not kept.

    Args:
        max_frames: looks that are kept.
        rows: at most this many pictures of each look.
        side: the longer side of each, at most, in pixels; of a map, about.
        note: a line below the strip.
        scale: of maps: "film", one for all epochs, or "epoch", one for each; that of the checkpoint without
            it, or "film".
    """

    def __init__(
        self,
        *,
        max_frames: int = 24,
        rows: int = 16,
        side: int = 96,
        note: str = "",
        scale: FilmScale | None = None,
    ):
        self.max_frames, self.rows, self.side, self.note = max_frames, rows, side, note
        self.scale: FilmScale | None = scale
        self.notes: list[str] = []
        self.images: dict[str, Tensor] = {}  # with which rows begin
        self.looks = 0
        self.stride = 1
        # look, label, pictures as the bytes of PNG files, or maps
        self.frames: list[tuple[int, str, dict[str, Any]]] = []
        self.theme: ThemeName | None = None  # of its frames; unknown of older ones

    def add(self, label: str, artifacts: Mapping[str, Artifact | FilmMaps], *notes: str) -> None:
        """Keep a frame of the pictures and maps among the artifacts; the notes are shown below the film."""
        shown = {
            name: item
            for name, item in artifacts.items()
            if isinstance(item, Picture | FilmMaps) and not isinstance(item, AllEpochs)
        }
        small = {}
        for name, item in list(shown.items())[: self.rows]:
            if isinstance(item, FilmMaps):
                small[name] = item.kept()
                self.images.setdefault(name, packed(picture(item.row.image)))
            else:
                small[name] = packed(shrunk(item.pixels, side=self.side))
            if isinstance(item, NextTo):
                self.images.setdefault(name, packed(item.first))
        if not small:
            return
        self._thin()
        if not self.looks:
            self.theme = theme_name()
        self.notes = list(dict.fromkeys([*self.notes, *notes]))
        self.frames.append((self.looks, label, small))
        self.looks += 1

    def strip(self, title: str = "", called: Mapping[str, str] | None = None) -> Picture | None:
        """The strip, if there is anything to compare: as many frames as are readable side by side.

        These are the first, the last, and of the others those that differ most from all that are shown. Its
        animation has all frames, under the title. Frames that are damaged are left out, and a note says so.
        The theme is that of the frames.

        Args:
            title: of the strip and of its animation.
            called: names of rows, where they differ from those that they were added by.
        """
        with drawn_in(self.theme):
            return self._strip(title, called or {})

    def _strip(self, title: str, named: Mapping[str, str]) -> Picture | None:
        opened, drawn = self._drawn(named)
        if len(opened) < 2:
            return None
        damaged = len(self.frames) - len(opened)
        notes = [*([self.note] if self.note else []), *drawn.notes, *self.notes]
        if damaged:
            notes.append(f"without {damaged} of {counted(len(self.frames), 'column')}, which cannot be read")
        frames = [pictures for _, pictures in opened]
        widest = max(pixels.shape[2] for pictures in frames for pixels in pictures.values())
        chosen = most_different(frames, max(FEWEST if widest <= WIDE else 2, min(MOST, WIDTH // widest)))
        shown = list(dict.fromkeys(name for place in chosen for name in frames[place]))
        rows = {name: [frames[place].get(name, blank(1, 1)) for place in chosen] for name in shown}
        below = {name: rows.pop(name) for name in (SCALE, STRONGEST) if name in rows and len(rows) > 1}
        column = max(pixels.shape[2] for row in rows.values() for pixels in row)
        feet = [
            shrunk(max(own, key=lambda one: one.shape[2]), side=column)
            for own in zip(*below.values(), strict=True)
        ]
        labels = [called(opened[place][0]) for place in chosen]
        words = list(notes)
        if len(opened) > len(chosen):
            others = (
                ", the last, and those that differ most from them" if len(chosen) > 2 else " and the last"
            )
            scales = "" if drawn.scales is None else "; the scale is that of all columns"
            words.append(f"{len(chosen)} of {len(opened)} columns: the first{others}{scales}")
        paper = sheet(rows, columns=labels, foot=feet, first=drawn.images)
        paper = paper if drawn.scales is None else stacked([paper, drawn.scales])
        return Strip(
            titled(noted(paper, *words), title),
            *(opened, notes, title, self.theme, drawn.images, drawn.scales),
        )

    def _drawn(self, named: Mapping[str, str]) -> tuple[list[tuple[str, dict[str, RGB]]], DrawnMaps]:
        """The label and the pictures of each look that can be read, and how its maps are drawn."""
        opened = self._opened()
        maps = [{name: own for name, own in look.items() if isinstance(own, FilmMaps)} for _, look in opened]
        scale: FilmScale = self.scale or "film"
        drawn = draw_maps(maps, scale=scale, side=self.side)
        looks = []
        for (label, own), strips in zip(opened, drawn.looks, strict=True):
            pictures = {name: pixels for name, pixels in own.items() if isinstance(pixels, Tensor)}
            looks.append(
                (label, {named.get(name, name): pixels for name, pixels in {**pictures, **strips}.items()})
            )
        rows = {name: self._image(name) for name in self.images} | {**drawn.images}
        images = {named.get(name, name): pixels for name, pixels in rows.items() if pixels is not None}
        notes = list(drawn.notes)
        if any(SCALE in own for _, own in opened):  # of an earlier version, which kept no values
            notes.append(NOTES["epoch"])
        return looks, replace(drawn, images=images, notes=notes)

    def _opened(self) -> list[tuple[str, dict[str, RGB | FilmMaps]]]:
        looks = []
        for _, label, kept in self.frames:
            own = {
                name: unpacked(item) if isinstance(item, Tensor) else opened_maps(item, self._image(name))
                for name, item in kept.items()
            }
            if own and all(item is not None for item in own.values()):
                looks.append((label, {name: item for name, item in own.items() if item is not None}))
        return looks

    def _image(self, row: str) -> RGB | None:
        file = self.images.get(row)
        return None if file is None else unpacked(file)

    def state_dict(self) -> dict:
        """Everything, in plain types."""
        frames = [list(frame) for frame in self.frames]
        own = {"looks": self.looks, "stride": self.stride, "frames": frames, "theme": self.theme}
        return {**own, "images": dict(self.images), "scale": self.scale, "notes": self.notes}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        self.looks, self.stride = state["looks"], state["stride"]
        self.frames = [(look, label, pictures) for look, label, pictures in state["frames"]]
        self.theme = own if (own := state.get("theme")) in get_args(ThemeName) else None
        self.images = dict(state.get("images", {}))
        self.notes = [str(line) for line in state.get("notes", [])]
        if self.scale is None:
            self.scale = kept if (kept := state.get("scale")) in get_args(FilmScale) else None

    def _thin(self) -> None:
        """Make room for one more: the newest frame so far stays only if evenly spaced with the others."""
        if len(self.frames) >= self.max_frames:
            self.stride *= 2
        self.frames = [frame for frame in self.frames if frame[0] % self.stride == 0]


@dataclass(frozen=True)
class Strip(Picture):
    """A strip, and the looks of its animation."""

    looks: Sequence[tuple[str, Mapping[str, RGB]]]
    notes: Sequence[str]
    title: str
    theme: ThemeName | None = None
    images: Mapping[str, RGB] = field(default_factory=dict)
    scales: RGB | None = None

    def animation(self) -> bytes:
        """A frame for each look: its pictures, and maps next to their images."""
        with drawn_in(self.theme):
            wide = max((own.shape[2] for own in self.images.values()), default=0)
            looks, feet = [], []
            for label, pictures in self.looks:
                own = {name: pixels for name, pixels in pictures.items() if name not in (SCALE, STRONGEST)}
                scales = [beside([blank(1, wide), pictures[name]]) for name in pictures if name not in own]
                scales += [] if self.scales is None else [self.scales]
                feet.append(stacked(scales or [blank(1, 1)]))
                looks.append(
                    (label, {name: self._next_to_image(name, pixels) for name, pixels in own.items()})
                )
            return animated(looks, *self.notes, title=self.title, feet=feet)

    def _next_to_image(self, name: str, pixels: RGB) -> RGB:
        return beside([self.images[name], pixels]) if name in self.images else pixels


def most_different(frames: Sequence[Mapping[str, RGB]], count: int) -> list[int]:
    """The places of the first frame, the last, and those between that differ most from these."""
    chosen = [0, len(frames) - 1]
    small = [torch.cat([_thumbnail(pixels) for pixels in pictures.values()]) for pictures in frames]
    while len(chosen) < min(count, len(frames)):
        apart = [min(_distance(own, small[place]) for place in chosen) for own in small]
        left = [place for place in range(len(frames)) if place not in chosen]
        chosen.append(max(left, key=lambda place: apart[place]))
    return sorted(chosen)


def _thumbnail(pixels: RGB) -> Tensor:
    return F.adaptive_avg_pool2d(pixels.float(), 12).flatten()


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().mean()) if one.shape == other.shape else float("inf")
