"""Film strips: pictures of a probe as rows, epochs as columns; few enough to be readable."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fulgurite.callbacks.framework.animation import animated
from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.probes.attribution.map_sheets import SCALE
from fulgurite.probes.counted import counted
from fulgurite.probes.render import RGB, blank, encoded, from_pil, noted, sheet, shrunk, titled
from fulgurite.probes.style import ThemeName, drawn_in, theme_name

FEWEST, MOST, WIDTH = 3, 8, 1500
"""Columns of a strip, and how many pixels wide they are together, about."""
LARGEST = 4096
"""The longer side of a frame that is read, at most, in pixels: ours are a quarter of it."""

EACH = "each epoch has its own scales, below its maps"
"""A note for films of maps."""


class Film:
    """Frames of a run, thinned to at most `max_frames` evenly spaced ones and the newest.

    Args:
        max_frames: looks that are kept.
        rows: at most this many pictures of each look.
        side: the longer side of each, at most, in pixels.
        note: a line below the strip.
    """

    def __init__(self, *, max_frames: int = 24, rows: int = 16, side: int = 96, note: str = ""):
        self.max_frames, self.rows, self.side, self.note = max_frames, rows, side, note
        self.looks = 0
        self.stride = 1
        self.frames: list[
            tuple[int, str, dict[str, Tensor]]
        ] = []  # look, label, pictures as the bytes of PNG files
        self.theme: ThemeName | None = None  # of its frames; unknown of older ones

    def add(self, label: str, artifacts: Mapping[str, Artifact]) -> None:
        """Keep a frame of the pictures among the artifacts."""
        pictures = {name: item.pixels for name, item in artifacts.items() if isinstance(item, Picture)}
        few = list(pictures.items())[: self.rows]
        small = {name: _packed(shrunk(pixels, side=self.side)) for name, pixels in few}
        if not small:
            return
        self._thin()
        if not self.looks:
            self.theme = theme_name()
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
        opened = [
            (label, {named.get(row, row): pixels for row, pixels in pictures.items()})
            for label, pictures in self.opened()
        ]
        if len(opened) < 2:
            return None
        damaged = len(self.frames) - len(opened)
        notes = [self.note] if self.note else []
        if damaged:
            notes.append(f"without {damaged} of {counted(len(self.frames), 'look')}, which cannot be read")
        frames = [pictures for _, pictures in opened]
        widest = max(pixels.shape[2] for pictures in frames for pixels in pictures.values())
        chosen = most_different(frames, max(FEWEST, min(MOST, WIDTH // widest)))
        shown = list(dict.fromkeys(name for place in chosen for name in frames[place]))
        rows = {name: [frames[place].get(name, blank(1, 1)) for place in chosen] for name in shown}
        scales = rows.pop(SCALE, []) if len(rows) > 1 else []
        column = max(pixels.shape[2] for row in rows.values() for pixels in row)
        scales = [shrunk(scale, side=column) for scale in scales]  # or the next one would hide its end
        labels = [opened[place][0] for place in chosen]
        columns = [f"epoch {label}" if label.isdecimal() else label for label in labels]
        words = list(notes)
        if len(opened) > len(chosen):
            words.append(f"of {len(opened)} looks, the first, the last, and those that differ most from them")
        return Strip(
            titled(noted(sheet(rows, columns=columns, foot=scales), *words), title),
            *(opened, notes, title, self.theme),
        )

    def opened(self) -> list[tuple[str, dict[str, RGB]]]:
        """The label and the pictures of each look that can be read."""
        looks = []
        for _, label, pictures in self.frames:
            own = {name: _unpacked(file) for name, file in pictures.items()}
            if own and all(pixels is not None for pixels in own.values()):
                looks.append((label, {name: pixels for name, pixels in own.items() if pixels is not None}))
        return looks

    def state_dict(self) -> dict:
        """Everything, in plain types."""
        frames = [list(frame) for frame in self.frames]
        return {"looks": self.looks, "stride": self.stride, "frames": frames, "theme": self.theme}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        self.looks, self.stride = state["looks"], state["stride"]
        self.frames = [(look, label, pictures) for look, label, pictures in state["frames"]]
        self.theme = own if (own := state.get("theme")) in get_args(ThemeName) else None

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

    def animation(self) -> bytes:
        """A frame for each look."""
        with drawn_in(self.theme):
            return animated(self.looks, *self.notes, title=self.title)


def _packed(pixels: RGB) -> Tensor:
    """A PNG file as a tensor of bytes: checkpoints hold tensors, and load nothing that could run."""
    return torch.frombuffer(bytearray(encoded(pixels)), dtype=torch.uint8)


def _unpacked(file: Tensor) -> RGB | None:
    """The picture; None if it is damaged, or larger than any film frame."""
    try:
        with Image.open(io.BytesIO(file.numpy().tobytes())) as image:
            return None if max(image.size) > LARGEST else from_pil(image)
    except (OSError, SyntaxError, ValueError):  # what Pillow raises of a damaged PNG
        return None


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
