"""Synthetic images by index: a shape on a background, determined by seed and number."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulgurite.data.datasets import LabelledDataset, as_it_is
from fulgurite.data.procedural_shapes import OUTLINES, TEXTURES, Plane, signals, tinted

ANY = -1
PLAIN = list(TEXTURES).index("plain")

Kind = tuple[int, int]
"""The numbers of a class's outline and texture; `ANY` where they do not depend on it."""

Draws = Iterator[Float[Tensor, "n"]]
"""Uniform random numbers in [0, 1), one for each image at a time."""

NUMBERS = 38
"""Random numbers that make an image; the last two decide which class its texture is of."""

Where = Literal["background", "shape"]


class Scenes(NamedTuple):
    """Images with their ground truth."""

    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, "n"]
    masks: Bool[Tensor, "n h w"]
    """The exact mask of the shape."""
    squares: Bool[Tensor, "n h w"]
    """Where the planted square is."""


class Drawn(LabelledDataset):
    """Images drawn on request, the same each time, in any batch and process.

    `cue_probability` is the probability that a square in the corner shows the class; None for no square.
    Labels come in blocks that hold each class once.

    Args:
        kinds: outline and texture of each class.
        classes: their names.
        count: how many images.
        size: their side, in pixels.
        channels: 1 or 3.
        cue_probability: see above.
        seed: of the data set, and the number of its part.
        shortcut: the probability that the background has the texture of the class's number; None for
            backgrounds without information on the class.
        conflict: whose texture is that of another class in every image.
    """

    collate = staticmethod(as_it_is)

    def __init__(
        self,
        kinds: Sequence[Kind],
        classes: tuple[str, ...],
        count: int,
        *,
        size: int,
        channels: int,
        cue_probability: float | None,
        seed: tuple[int, int],
        shortcut: float | None = None,
        conflict: Where | None = None,
    ):
        self.shortcut = shortcut
        self.conflict: Where | None = conflict
        self.kinds = kinds
        self.classes = classes
        self.size = size
        self.channels = channels
        self.cue_probability = cue_probability
        self.seed = seed
        blocks = math.ceil(count / len(kinds))
        order = np.random.default_rng((*seed, 0)).random((blocks, len(kinds))).argsort(1)
        self.labels = torch.from_numpy(order).flatten()[:count]

    def __getitem__(self, index: SupportsIndex) -> tuple[Float[Tensor, "c h w"], int]:
        images, labels = self.__getitems__([index])
        return images[0], int(labels[0])

    def __getitems__(
        self, indices: Sequence[SupportsIndex]
    ) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, "n"]]:
        images, labels, *_ = self.scenes(indices)
        return images, labels

    def scenes(self, indices: Iterable[SupportsIndex]) -> Scenes:
        """The images of these indices, with their masks."""
        labels, draws, last = self._drawn(indices)
        images, masks = _render(
            draws, *self._appearance(draws, labels, last), size=self.size, channels=self.channels
        )
        squares = torch.zeros_like(masks)
        if self.cue_probability is not None:
            side = max(2, self.size // 8)
            squares[:, :side, :side] = True
            images = torch.where(squares[:, None], self._signals(draws, labels), images)
        # as from a file of 8 bits
        return Scenes((images * 255).round() / 255, labels, masks & ~squares, squares)

    def masks(self, indices: Iterable[SupportsIndex]) -> Bool[Tensor, "n h w"]:
        """Where the shapes are."""
        return self.scenes(indices).masks

    def cue_labels(self, indices: Iterable[SupportsIndex]) -> Int[Tensor, "n"]:
        """The class of the texture, of the background's if it is a shortcut or a conflict; -1 for none."""
        labels, draws, last = self._drawn(indices)
        _, shape, background = self._appearance(draws, labels, last)
        by_background = self.shortcut is not None or self.conflict == "background"
        same = (background if by_background else shape)[:, None] == self._textures_of_classes(by_background)
        return torch.where(same.any(1), same.int().argmax(1), -1)

    def _drawn(
        self, indices: Iterable[SupportsIndex]
    ) -> tuple[Int[Tensor, "n"], Draws, Float[Tensor, "2 n"]]:
        """Labels, and the random numbers of each image, the last two apart."""
        chosen = [range(len(self))[index] for index in indices]
        numbers = np.empty((len(chosen), NUMBERS), np.float32)
        for row, index in zip(numbers, chosen, strict=True):
            np.random.default_rng((*self.seed, index + 1)).random(out=row, dtype=np.float32)
        drawn = torch.from_numpy(numbers).T
        return self.labels[chosen], iter(drawn[:-2].unbind()), drawn[-2:]

    def _textures_of_classes(self, by_background: bool) -> Int[Tensor, "k"]:
        return torch.arange(len(self.kinds)) if by_background else torch.tensor(self.kinds)[:, 1]

    def _appearance(
        self, draws: Draws, labels: Int[Tensor, "n"], last: Float[Tensor, "2 n"]
    ) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"], Int[Tensor, "n"]]:
        """The numbers of each image's outline, of its texture and of its background's."""
        outlines, textures = torch.tensor(self.kinds)[labels].unbind(1)
        # where the texture depends on the class, the background must not have another class's
        background_textures = torch.where(textures < 0, ANY, PLAIN)
        count = len(self.kinds)
        others = (labels + 1 + (last[1] * (count - 1)).long()) % count
        if self.conflict == "shape":
            textures = self._textures_of_classes(False)[others]
        elif self.conflict == "background":
            background_textures = self._textures_of_classes(True)[others]
        elif self.shortcut is not None:
            class_textures = self._textures_of_classes(True)[labels]
            background_textures = torch.where(last[0] < self.shortcut, class_textures, background_textures)
        return (
            _drawn(draws, outlines, len(OUTLINES)),
            _drawn(draws, textures, len(TEXTURES)),
            _drawn(draws, background_textures, len(TEXTURES)),
        )

    def _signals(self, draws: Draws, labels: Int[Tensor, "n"]) -> Float[Tensor, "n c 1 1"]:
        anyones = _drawn(draws, torch.full_like(labels, ANY), len(self.kinds))
        shown = torch.where(next(draws) < (self.cue_probability or 0), labels, anyones)
        return signals(len(self.kinds), channels=self.channels)[shown, :, None, None]


def _drawn(draws: Draws, known: Int[Tensor, "n"], kinds: int) -> Int[Tensor, "n"]:
    # drawn in any case, so that later draws do not depend on the options
    drawn = (next(draws) * kinds).long()
    return torch.where(known == ANY, drawn, known)


def _render(
    draws: Draws,
    outlines: Int[Tensor, "n"],
    textures: Int[Tensor, "n"],
    background_textures: Int[Tensor, "n"],
    *,
    size: int,
    channels: int,
) -> tuple[Float[Tensor, "n channels h w"], Bool[Tensor, "n h w"]]:
    centres = (torch.arange(size) + 0.5) * 2 / size - 1
    x, y = centres[None, None, :], -centres[None, :, None]
    masks = _outlined(draws, x, y, outlines)
    patterns = _patterned(draws, x, y, textures), _patterned(draws, x, y, background_textures)
    shape, background = _coloured(draws, patterns, channels=channels)
    return torch.where(masks[:, None], shape, background), masks


def _outlined(draws: Draws, x: Tensor, y: Tensor, outlines: Int[Tensor, "n"]) -> Bool[Tensor, "n h w"]:
    radius = _between(draws, 0.45, 0.8)
    # whole, with all points within the image
    right, up = (_between(draws, -1, 1) * (1 - radius) for _ in range(2))
    return _each([*OUTLINES.values()], outlines, *_turned(draws, x - right, y - up, 1 / radius))


def _patterned(draws: Draws, x: Tensor, y: Tensor, textures: Int[Tensor, "n"]) -> Plane:
    repeats = _between(draws, 2, 3.5)
    right, up = (_between(draws, 0, 64) for _ in range(2))
    return _each([*TEXTURES.values()], textures, *_turned(draws, x - right, y - up, repeats))


def _turned(draws: Draws, x: Tensor, y: Tensor, scale: Tensor) -> tuple[Plane, Plane]:
    angle = _between(draws, 0, 2 * math.pi)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    return cosine * x + sine * y, cosine * y - sine * x


def _each(functions: Sequence[Callable[[Plane, Plane], Tensor]], which: Tensor, x: Plane, y: Plane) -> Tensor:
    """Each image by its own function, all of one function at once."""
    rows = [(which == number).nonzero()[:, 0] for number in range(len(functions))]
    done = [function(x[own], y[own]) for function, own in zip(functions, rows, strict=True) if len(own)]
    return torch.cat(done)[torch.cat(rows).argsort()]


def _coloured(
    draws: Draws, patterns: tuple[Plane, Plane], *, channels: int
) -> list[Float[Tensor, "n c h w"]]:
    """Shape and background, all pixels of one lighter than all of the other."""
    gap = _between(draws, 0.35, 0.55)
    dark = 0.15 + next(draws)[:, None, None] * (0.7 - gap)
    lighter = _between(draws, 0, 1) < 0.5
    colours = []
    for pattern, light in zip(patterns, (lighter, ~lighter), strict=True):
        middle = torch.where(light, dark + gap, dark)
        swing = _between(draws, 0.05, 0.12) * torch.where(_between(draws, 0, 1) < 0.5, -1, 1)
        first, second = (
            tinted(luma.flatten(), torch.stack([next(draws) for _ in range(3)], 1), channels=channels)[
                ..., None, None
            ]
            for luma in (middle - swing, middle + swing)
        )
        colours.append(torch.lerp(first, second, pattern[:, None]))
    return colours


def _between(draws: Draws, low: float, high: float) -> Float[Tensor, "n 1 1"]:
    return (low + (high - low) * next(draws))[:, None, None]
