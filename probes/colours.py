"""Values as colours: magnitudes, signed values, and their scale (colour bar)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fulgurite.probes.composites import composed
from fulgurite.probes.drawing import RGB, Drawing, length
from fulgurite.probes.style import LINE, Stops, theme

Kind = Literal["magnitude", "signed", "over", "grey"]
BAR = 120
"""Length of a scale, in pixels."""
_TINY = torch.finfo(torch.float32).tiny


def picture(image: Float[Tensor, "c h w"]) -> RGB:
    """An image in [0, 1]; what lies outside is cut off, NaN is magenta.

    One channel is grey, three are colour; of others, see `composites`.
    """
    image = composed(image)
    wrong = ~image.isfinite().all(0)
    pixels = (image.detach().float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return _marked(pixels.expand(3, -1, -1).clone(), wrong.cpu())


def heat(values: Float[Tensor, "h w"], *, top: float | None = None) -> RGB:
    """Magnitudes from 0 to `top`, magenta where they are not finite; zero is black, or white on light paper.

    Without `top`, it is the largest value but the brightest 1 % of the pixels.
    """
    values, wrong = _finite(values)
    top = float(values.quantile(0.99)) if top is None else top
    return _marked(_ramp(theme().magnitudes, (values / max(top, _TINY)).clamp(0, 1)), wrong)


def diverging(values: Float[Tensor, "h w"], *, top: float | None = None) -> RGB:
    """Signed values from `-top` (blue) through 0 (the colour of the paper, about) to `top` (orange).

    Without `top`, it is the largest size but the largest 1 % of the pixels. Magenta is what is not finite.
    """
    values, wrong = _finite(values)
    top = float(values.abs().quantile(0.99)) if top is None else top
    return _marked(_ramp(theme().signed, (values / max(top, _TINY)).clamp(-1, 1) / 2 + 0.5), wrong)


def overlaid(pixels: RGB, values: Float[Tensor, "h w"], *, top: float | None = None) -> RGB:
    """Values over a picture in grey: orange where they are positive, blue where negative, clear at 0.

    Without `top`, full colour is at the largest size but the brightest 1 % of the pixels. Magenta is what is
    not finite.
    """
    values, wrong = _finite(values)
    top = float(values.abs().quantile(0.99)) if top is None else top
    strength = (values.abs() / max(top, _TINY)).clamp(0, 1)
    red, green, blue = pixels.float()
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    # darker on dark paper and lighter on light, so that full colours stand out from any image
    grey = 0.7 * grey + (0.3 * 255 if theme().background[0] > 127 else 0)
    warm, cool = (torch.tensor(theme().signed[place], dtype=torch.float32) for place in (-2, 1))
    colour = torch.where(values > 0, warm[:, None, None], cool[:, None, None])
    mixed = grey * (1 - 0.8 * strength) + colour * 0.8 * strength
    return _marked(mixed.round().to(torch.uint8), wrong)


def signed(values: Float[Tensor, "c h w"], *, top: float | None = None) -> RGB:
    """Values of either sign, per colour channel: 0 is mid-grey, `-top` black and `top` white.

    Without `top`, it is the largest size among them.
    """
    top = largest(values) if top is None else top
    return picture(values.float() / max(2 * top, _TINY) + 0.5)


def largest(values: Tensor) -> float:
    """The largest size among the finite values."""
    return float(values.abs().nan_to_num(0, 0, 0).max())


def common_top(values: Sequence[Tensor], *, share: float = 0.995) -> float:
    """The end of a scale for several maps: what this share of the pixels of the strongest stays below.

    A scale may ignore a few outliers, and ignores maps that are weaker than the strongest.
    """
    tops = [
        float(sizes[min(len(sizes) - 1, round(share * (len(sizes) - 1)))])
        for own in values
        if len(sizes := own.detach().float().abs().nan_to_num(0, 0, 0).flatten().sort().values)
    ]
    return max(tops, default=0.0)


def scale_bar(
    kind: Kind,
    top: float,
    words: str = "",
    *,
    low: float | None = None,
    width: int = BAR,
    below: bool = False,
) -> RGB:
    """The scale of values: a bar of their colours between the numbers at its ends, and what they are.

    Args:
        kind: "magnitude" as `heat` draws them, "signed" as `diverging`, "over" as `overlaid`, "grey" as
            `signed`.
        top: the value at the right end.
        words: what is shown, and its unit.
        low: the value at the left end; 0 or `-top` without it.
        width: of the bar, in pixels.
        below: numbers below the bar, as in a column of a sheet, and no words.
    """
    if low is None:
        low = 0.0 if kind == "magnitude" else -top
    bar = _bar(kind, width)
    ends = f"{short_number(low)}", f"{short_number(top)}"
    if below:
        if length(" ".join(ends)) > width:  # they would run into each other
            ends = f"{low:.1g}", f"{top:.1g}"
        paper = Drawing(width, 8 + LINE)
        paper.put((0, 0), bar[:, :7])
        paper.text((0, 8), ends[0])
        paper.text((width, 8), ends[1], anchor="ra")
        middle = "0" if low < 0 else ""
        if length(ends[0] + ends[1]) < width - 30:
            paper.text((width / 2, 8), middle, anchor="ma")
        return paper.pixels()
    left = 4 + int(length(ends[0])) + 4
    text = left + width + 4 + int(length(ends[1])) + 10
    paper = Drawing(text + int(length(words)) + 4, LINE + 2)
    paper.text((4, 1), ends[0])
    paper.put((left, 3), bar)
    paper.text((left + width + 4, 1), ends[1])
    paper.text((text, 1), words)
    return paper.pixels()


def short_number(value: float) -> str:
    """A number of three digits, or as many as it has before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _bar(kind: Kind, width: int) -> RGB:
    across = torch.linspace(0 if kind == "magnitude" else -1, 1, width).expand(11, -1)
    if kind == "magnitude":
        return heat(across, top=1.0)
    if kind == "signed":
        return diverging(across, top=1.0)
    if kind == "grey":
        return signed(across[None], top=1.0)
    return overlaid(torch.full((3, 11, width), 128, dtype=torch.uint8), across, top=1.0)


def _finite(values: Float[Tensor, "h w"]) -> tuple[Float[Tensor, "h w"], Bool[Tensor, "h w"]]:
    values = values.detach().float().cpu()
    return values.nan_to_num(0, 0, 0), ~values.isfinite()


def _ramp(stops: Stops, place: Float[Tensor, "h w"]) -> RGB:
    colours = torch.tensor(stops, dtype=torch.float32)
    place = place * (len(colours) - 1)
    low = place.long().clamp(max=len(colours) - 2)
    rest = (place - low)[..., None]
    mixed = colours[low] * (1 - rest) + colours[low + 1] * rest
    return mixed.round().to(torch.uint8).permute(2, 0, 1)


def _marked(pixels: RGB, wrong: Bool[Tensor, "h w"]) -> RGB:
    pixels[:, wrong] = torch.tensor([255, 0, 255], dtype=torch.uint8)[:, None]
    return pixels
