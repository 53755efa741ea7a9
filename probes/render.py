"""Tensors as pictures: heat maps, grids, captions and sheets, as 8-bit RGB."""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.composites import composed

RGB = UInt8[Tensor, "3 _ _"]

BACKGROUND = (24, 24, 28)
INK = (225, 225, 230)
LINE = 15  # height of a line of text, in pixels

_TINY = torch.finfo(torch.float32).tiny

# from black through violet and orange to pale yellow, lightness rising evenly
_HEAT = torch.tensor(
    [
        [0, 0, 4],
        [31, 12, 72],
        [85, 15, 109],
        [136, 34, 106],
        [186, 54, 85],
        [227, 89, 51],
        [249, 140, 10],
        [249, 201, 50],
        [252, 255, 164],
    ],
    dtype=torch.float32,
)


_WARM, _COOL = torch.tensor([255.0, 130.0, 20.0]), torch.tensor([40.0, 120.0, 255.0])


def picture(image: Float[Tensor, "c h w"]) -> RGB:
    """An image in [0, 1]; what lies outside is cut off, NaN is magenta.

    One channel is grey, three are colour; of others, see `composites`.
    """
    image = composed(image)
    wrong = ~image.isfinite().all(0)
    pixels = (image.detach().float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return _marked(pixels.expand(3, -1, -1).clone(), wrong.cpu())


def heat(values: Float[Tensor, "h w"], *, top: float | None = None) -> RGB:
    """Values from 0 (black) to `top` (pale yellow), magenta where they are not finite.

    Without `top`, it is the largest value but the brightest 1 % of the pixels.
    """
    values = values.detach().float().cpu()
    wrong, values = ~values.isfinite(), values.nan_to_num(0, 0, 0)
    top = float(values.quantile(0.99)) if top is None else top
    place = (values / max(top, _TINY)).clamp(0, 1) * (len(_HEAT) - 1)
    low = place.long().clamp(max=len(_HEAT) - 2)
    rest = (place - low)[..., None]
    colours = (_HEAT[low] * (1 - rest) + _HEAT[low + 1] * rest).round().to(torch.uint8)
    return _marked(colours.permute(2, 0, 1), wrong)


def overlaid(pixels: RGB, values: Float[Tensor, "h w"], *, top: float | None = None) -> RGB:
    """Values over a picture in grey: warm where they are positive, cool where negative, clear at 0.

    Without `top`, full colour is at the largest size but the brightest 1 % of the pixels. Magenta is what is
    not finite.
    """
    values = values.detach().float().cpu()
    wrong, values = ~values.isfinite(), values.nan_to_num(0, 0, 0)
    top = float(values.abs().quantile(0.99)) if top is None else top
    strength = (values.abs() / max(top, _TINY)).clamp(0, 1)
    red, green, blue = pixels.float()
    grey = 0.7 * (0.299 * red + 0.587 * green + 0.114 * blue)
    colour = torch.where(values > 0, _WARM[:, None, None], _COOL[:, None, None])
    mixed = grey * (1 - 0.8 * strength) + colour * 0.8 * strength
    return _marked(mixed.round().to(torch.uint8), wrong)


def signed(values: Float[Tensor, "c h w"], *, top: float | None = None) -> RGB:
    """Values of either sign, per channel: 0 is mid-grey, `-top` black and `top` white.

    Without `top`, it is the largest size among them.
    """
    top = largest(values) if top is None else top
    return picture(values.float() / max(2 * top, _TINY) + 0.5)


def largest(values: Tensor) -> float:
    """The largest size among the finite values."""
    return float(values.abs().nan_to_num(0, 0, 0).max())


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


def grid(tiles: Sequence[RGB], *, columns: int | None = None, gap: int = 1) -> RGB:
    """Tiles in rows, each in the upper left of a cell as large as the largest; about a square by default."""
    columns = columns or round(len(tiles) ** 0.5 + 0.49)
    height = max(tile.shape[1] for tile in tiles) + gap
    width = max(tile.shape[2] for tile in tiles) + gap
    rows = -(-len(tiles) // columns)
    sheet = _blank(rows * height + gap, columns * width + gap)
    for place, tile in enumerate(tiles):
        top, left = place // columns * height + gap, place % columns * width + gap
        sheet[:, top : top + tile.shape[1], left : left + tile.shape[2]] = tile
    return sheet


def stacked(tiles: Sequence[RGB], *, gap: int = 8) -> RGB:
    """Pictures of any width one below the other."""
    width = max(tile.shape[2] for tile in tiles)
    paper = _blank(sum(tile.shape[1] + gap for tile in tiles) - gap, width)
    top = 0
    for tile in tiles:
        paper[:, top : top + tile.shape[1], : tile.shape[2]] = tile
        top += tile.shape[1] + gap
    return paper


def captioned(pixels: RGB, *lines: str) -> RGB:
    """The picture with lines of text under it, cut to its width."""
    if not lines:
        return pixels
    width = pixels.shape[2]
    strip = Image.new("RGB", (width, LINE * len(lines)), BACKGROUND)
    pen = ImageDraw.Draw(strip)
    for row, line in enumerate(lines):
        pen.text((2, row * LINE), cut(line, width - 3), INK, font=font())
    return torch.cat([pixels, from_pil(strip)], 1)


def sheet(rows: Mapping[str, Sequence[RGB]], *, columns: Sequence[str], gap: int = 2) -> RGB:
    """Pictures in rows and columns, with their names."""
    margin = 10 + max(int(font().getlength(cut(name, 160))) for name in rows)
    tiles = [tile for row in rows.values() for tile in row]
    height, width = (max(tile.shape[axis] for tile in tiles) + gap for axis in (1, 2))
    width = max(width, 4 + max(int(font().getlength(cut(name, 120))) for name in columns))
    paper = Image.new("RGB", (margin + width * len(columns), LINE + gap + height * len(rows)), BACKGROUND)
    pen = ImageDraw.Draw(paper)
    for place, name in enumerate(columns):
        pen.text((margin + place * width, 0), cut(name, width - 2), INK, font=font())
    for row, (name, pictures) in enumerate(rows.items()):
        top = LINE + gap + row * height
        pen.text((2, top + max(0, (height - LINE) // 2)), cut(name, margin - 8), INK, font=font())
        for place, tile in enumerate(pictures):
            paper.paste(to_pil(tile), (margin + place * width, top))
    return from_pil(paper)


def encoded(pixels: RGB, *, how: Literal["PNG", "JPEG"] = "PNG") -> bytes:
    """The picture as a file's bytes; JPEG at quality 90."""
    file = io.BytesIO()
    to_pil(pixels).save(file, how, **({"quality": 90} if how == "JPEG" else {}))
    return file.getvalue()


def write(pixels: RGB, path: Path) -> None:
    """Write the picture to a file, all of it or nothing; JPEG if it ends so, PNG otherwise."""
    how = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    write_atomic(path, encoded(pixels, how=how))


def decoded(file: bytes) -> RGB:
    """The picture in a file's bytes."""
    return from_pil(Image.open(io.BytesIO(file)))


@cache
def font(size: int = 12) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of every caption."""
    # at 11, a blank is rounded to two pixels, and lost between a digit and a letter
    return ImageFont.load_default(size)


def cut(line: str, width: int) -> str:
    """The line, or as much of it as fits into `width` pixels and an ellipsis; line breaks become blanks."""
    line = line.replace("\n", " ")
    if font().getlength(line) <= width:
        return line
    while line and font().getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def short_number(value: float) -> str:
    """A number of three digits, or as many as it has before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _marked(pixels: RGB, wrong: Bool[Tensor, "h w"]) -> RGB:
    pixels[:, wrong] = torch.tensor([255, 0, 255], dtype=torch.uint8)[:, None]
    return pixels


def _blank(height: int, width: int) -> RGB:
    return torch.tensor(BACKGROUND, dtype=torch.uint8)[:, None, None].expand(3, height, width).clone()


def to_pil(pixels: RGB) -> Image.Image:
    """The picture as Pillow knows it."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def from_pil(image: Image.Image) -> RGB:
    """A Pillow image as a picture."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
