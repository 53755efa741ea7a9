"""Film strips: what a probe saw as rows, epochs as columns."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fulgurite.callbacks.boards.tensorboard import Artifact, Picture
from fulgurite.probes.render import RGB, decoded, encoded, sheet, shrunk


class Film:
    """Frames of a run, thinned to at most `max_frames` evenly spaced ones and the newest.

    Args:
        max_frames: columns.
        rows: at most so many pictures of each look.
        side: the longer side of each, at most, in pixels.
    """

    def __init__(self, *, max_frames: int = 24, rows: int = 16, side: int = 96):
        self.max_frames, self.rows, self.side = max_frames, rows, side
        self.looks = 0
        self.stride = 1
        self.frames: list[
            tuple[int, str, dict[str, Tensor]]
        ] = []  # look, label, pictures as the bytes of PNG files

    def add(self, label: str, artifacts: Mapping[str, Artifact]) -> None:
        """Keep a frame of the pictures among the artifacts."""
        pictures = {name: item.pixels for name, item in artifacts.items() if isinstance(item, Picture)}
        few = list(pictures.items())[: self.rows]
        small = {name: _packed(shrunk(pixels, side=self.side)) for name, pixels in few}
        if not small:
            return
        self._thin()
        self.frames.append((self.looks, label, small))
        self.looks += 1

    def strip(self) -> Picture | None:
        """The strip, if there is anything to compare."""
        if len(self.frames) < 2:
            return None
        names = list(dict.fromkeys(name for _, _, pictures in self.frames for name in pictures))
        blank = _packed(torch.zeros(3, 1, 1, dtype=torch.uint8))
        rows = {
            name: [_unpacked(pictures.get(name, blank)) for _, _, pictures in self.frames] for name in names
        }
        return Picture(sheet(rows, columns=[label for _, label, _ in self.frames]))

    def state_dict(self) -> dict:
        """Everything, in plain types."""
        return {"looks": self.looks, "stride": self.stride, "frames": [list(frame) for frame in self.frames]}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from what `state_dict` gave."""
        self.looks, self.stride = state["looks"], state["stride"]
        self.frames = [(look, label, pictures) for look, label, pictures in state["frames"]]

    def _thin(self) -> None:
        """Make room for one more: the newest frame until now stays only if it is in step with the others."""
        if len(self.frames) >= self.max_frames:
            self.stride *= 2
        self.frames = [frame for frame in self.frames if frame[0] % self.stride == 0]


def _packed(pixels: RGB) -> Tensor:
    """A PNG file as a tensor of bytes: checkpoints hold tensors, and load nothing that could run."""
    return torch.frombuffer(bytearray(encoded(pixels)), dtype=torch.uint8)


def _unpacked(file: Tensor) -> RGB:
    return decoded(file.numpy().tobytes())
