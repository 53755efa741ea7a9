"""Drawing: lines, dots, boxes, text and pictures at their places, as pixels, SVG or PDF."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fulgurite.probes.style import LINE, TEXT, Colour, rgb, theme

RGB = UInt8[Tensor, "3 _ _"]
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line through points, or an area within them."""

    points: Sequence[Point]
    colour: Colour
    width: float = 1.0
    filled: bool = False


@dataclass(frozen=True)
class Dot:
    """A dot around a point."""

    at: Point
    radius: float
    colour: Colour


@dataclass(frozen=True)
class Text:
    """A line of text; `anchor` as Pillow has it; upright text is read from below, and `at` is its middle."""

    at: Point
    words: str
    colour: Colour
    anchor: str = "la"
    size: int = TEXT
    upright: bool = False


@dataclass(frozen=True)
class Part:
    """A picture with its upper left corner at a point; and the drawing that it was made from, if any."""

    at: tuple[int, int]
    pixels: RGB
    drawing: "Drawing | None"


Mark = Line | Dot | Text | Part
# the drawing behind each living picture: vector files are written from it
_DRAWN = WeakTensorKeyDictionary()


@dataclass
class Drawing:
    """Marks on paper of the theme's colour: lines and dots lie below pictures, and text above all."""

    width: int
    height: int
    background: Colour = field(default_factory=lambda: theme().background)
    marks: list[Mark] = field(default_factory=list)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1.0) -> None:
        """Draw a line through points, `width` pixels wide."""
        self.marks.append(Line([*points], colour, width))

    def area(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill what lies within the points."""
        self.marks.append(Line([*points], colour, filled=True))

    def dot(self, at: Point, radius: float, colour: Colour) -> None:
        """Draw a dot."""
        self.marks.append(Dot(at, radius, colour))

    def text(
        self,
        at: Point,
        words: str,
        colour: Colour | None = None,
        *,
        anchor: str = "la",
        size: int = TEXT,
        upright: bool = False,
    ) -> None:
        """Write a line of text, in the colour of ink without one."""
        self.marks.append(Text(at, words, colour or theme().ink, anchor, size, upright))

    def put(self, at: tuple[int, int], pixels: RGB) -> None:
        """Place a picture, its upper left corner at a point."""
        self.marks.append(Part(at, pixels, drawing_of(pixels)))

    def pixels(self) -> RGB:
        """The drawing as 8-bit RGB; lines and dots with smooth edges."""
        paper = self._shapes()
        canvas = np.array(paper)
        for mark in self.marks:
            if isinstance(mark, Part):
                left, top = mark.at
                high, wide = mark.pixels.shape[1:]
                target = canvas[max(top, 0) : top + high, max(left, 0) : left + wide]
                source = mark.pixels.permute(1, 2, 0).numpy()[max(-top, 0) :, max(-left, 0) :]
                target[:] = source[: target.shape[0], : target.shape[1]]
        words = [mark for mark in self.marks if isinstance(mark, Text)]
        if words:
            image = Image.fromarray(canvas)
            pen = ImageDraw.Draw(image)
            for mark in words:
                _write(image, pen, mark)
            canvas = np.array(image)
        drawn = torch.from_numpy(canvas).permute(2, 0, 1).contiguous()
        _DRAWN[drawn] = self
        return drawn

    def _shapes(self) -> Image.Image:
        shapes = [mark for mark in self.marks if isinstance(mark, Line | Dot)]
        # drawn at twice the size and shrunk: smooth edges
        times = 2 if shapes else 1
        paper = Image.new("RGB", (times * self.width, times * self.height), rgb(self.background))
        pen = ImageDraw.Draw(paper)
        for mark in shapes:
            fill = rgb(mark.colour)
            if isinstance(mark, Dot):
                (x, y), radius = mark.at, mark.radius
                pen.ellipse([2 * (x - radius), 2 * (y - radius), 2 * (x + radius), 2 * (y + radius)], fill)
            elif mark.filled:
                pen.polygon([(2 * x, 2 * y) for x, y in mark.points], fill)
            else:
                pen.line([(2 * x, 2 * y) for x, y in mark.points], fill, round(2 * mark.width))
        return paper.resize((self.width, self.height), Image.Resampling.BOX) if shapes else paper


def drawing_of(pixels: RGB) -> Drawing | None:
    """The drawing behind a picture; None for one that is only pixels."""
    return _DRAWN.get(pixels)


@cache
def font(size: int = TEXT) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of every caption."""
    # at 11, a blank is rounded to two pixels, and lost between a digit and a letter
    return ImageFont.load_default(size)


def length(words: str, size: int = TEXT) -> float:
    """How wide a line of text is, in pixels."""
    return font(size).getlength(words)


def _write(image: Image.Image, pen: ImageDraw.ImageDraw, mark: Text) -> None:
    if not mark.upright:
        pen.text(mark.at, mark.words, rgb(mark.colour), font=font(mark.size), anchor=mark.anchor)
        return
    mask = Image.new("L", (int(length(mark.words, mark.size)) + 2, LINE + mark.size - TEXT), 0)
    ImageDraw.Draw(mask).text((1, 0), mark.words, 255, font=font(mark.size))
    mask = mask.rotate(90, expand=True)
    x, y = mark.at
    image.paste(rgb(mark.colour), (round(x - mask.width / 2), round(y - mask.height / 2)), mask)
