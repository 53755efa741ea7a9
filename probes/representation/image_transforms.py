"""Flips, rotations, scalings and translations of images, and how feature maps are brought back from them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

WORD = re.compile(r"(hflip|vflip|rot|scale|shift|roll)(-?\d+\.?\d*)?(?:x(-?\d+\.?\d*))?")
WANTED = "hflip, vflip, rot90 (degrees), scale0.7, shift4x-2 (pixels right and down), roll4 (shifted around)"


USUAL = ("hflip", "vflip", "rot90", "scale0.7", "shift4")


@dataclass(frozen=True)
class ImageTransform:
    """A transformation of images about their centre; `undone` brings maps back to where they were.

    Flips, right angles and shifts by whole positions move values and change none; others are bilinear. What
    comes in at the edges is 0 where images are shifted, and mirrored where they are turned or made smaller.
    """

    name: str
    kind: str
    amount: float = 0.0
    down: float = 0.0

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The transformed images.

        Raises:
            ValueError: images that are not square, to be turned by a right angle.
        """
        if self.kind == "rot" and self.amount % 180 == 90 and images.shape[2] != images.shape[3]:
            high, wide = images.shape[2:]
            raise ValueError(f"{self.name} of images of {high} x {wide} pixels; wanted square ones")
        return self._moved(images, 1, self.amount, self.down)

    def undone(self, maps: Float[Tensor, "n c h w"], image: tuple[int, int]) -> Float[Tensor, "n c h w"]:
        """Maps of transformed images of this height and width, with each position where it came from."""
        if maps.shape[2:].numel() == 1:
            return maps
        across, along = maps.shape[3] / image[1], maps.shape[2] / image[0]
        return self._moved(maps, -1, self.amount * across, self.down * along)

    def _moved(self, maps: Tensor, way: int, right: float, down: float) -> Tensor:
        if self.kind in ("hflip", "vflip"):
            return maps.flip(3 if self.kind == "hflip" else 2)
        if self.kind in ("shift", "roll"):
            return _shifted(maps, way * right, way * down, around=self.kind == "roll")
        if self.kind == "rot" and self.amount % 90 == 0:
            return torch.rot90(maps, way * int(self.amount // 90), (2, 3))
        angle = math.radians(self.amount) if self.kind == "rot" else 0.0
        factor = self.amount if self.kind == "scale" else 1.0
        return _resampled(maps, way * angle, factor**way)


def image_transform(word: str) -> ImageTransform:
    """The transformation that a word names, such as hflip, rot90, scale0.7 or shift4.

    Raises:
        ValueError: there is none.
    """
    found = WORD.fullmatch(word.strip())
    kind, amount, down = found.groups() if found else ("", None, None)
    plain = kind in ("hflip", "vflip")
    if not kind or plain != (amount is None) or (down is not None and kind not in ("shift", "roll")):
        raise ValueError(f"no transformation {word!r}; wanted {WANTED}")
    value, second = float(amount or 0), float(down or 0)
    if kind == "scale" and not 0.1 <= value <= 10:
        raise ValueError(f"{word}: a factor of {value:g}; wanted 0.1 to 10")
    if kind in ("shift", "roll") and not (value.is_integer() and second.is_integer()):
        raise ValueError(f"{word}: images are shifted by whole pixels")
    if max(abs(value), abs(second)) > 4096:
        raise ValueError(f"{word}: wanted at most 4096")
    return ImageTransform(word.strip(), kind, value, second)


def usual_transforms(shape: Sequence[int]) -> list[str]:
    """One transformation of each kind, by name, for images of a shape that ends in height and width."""
    square = shape[-1] == shape[-2]
    return [word if square else word.replace("rot90", "rot180") for word in USUAL]


def _shifted(maps: Tensor, right: float, down: float, *, around: bool) -> Tensor:
    """Shifted along both sides, between positions linearly."""
    for axis, by in ((3, right), (2, down)):
        whole = math.floor(by)
        near = _by_whole(maps, whole, axis, around)
        part = by - whole
        maps = near if part == 0 else (1 - part) * near + part * _by_whole(maps, whole + 1, axis, around)
    return maps


def _by_whole(maps: Tensor, by: int, axis: int, around: bool) -> Tensor:
    if by == 0:
        return maps
    rolled = maps.roll(by, axis)
    if around:
        return rolled
    side = maps.shape[axis]
    place = torch.arange(side, device=maps.device)
    kept = (place >= by) & (place < side + by)
    return rolled * kept.view(-1, *[1] * (3 - axis))


def _resampled(maps: Tensor, angle: float, factor: float) -> Tensor:
    """Turned, against the clock, and enlarged about the centre."""
    high, wide = maps.shape[2:]
    cosine, sine = math.cos(angle) / factor, math.sin(angle) / factor
    # where each place comes from, in units of half the sides
    rows = [[cosine, -sine * high / wide, 0.0], [sine * wide / high, cosine, 0.0]]
    theta = torch.tensor(rows, device=maps.device).to(maps.dtype).expand(len(maps), -1, -1)
    grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)
