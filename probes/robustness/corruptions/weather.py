"""Snow, frost, fog and brightness (ImageNet-C); frost is drawn, not pasted from photographs."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.robustness.corruptions.blurs import at, grid, trail, zoomed

Images = Float[Tensor, "n c h w"]
ICE = (0.86, 0.94, 1.0)  # its tint, in red, green and blue


def snow(
    images: Images,
    draws: PerImageRandom,
    mean: float,
    spread: float,
    zoom: float,
    least: float,
    radius: float,
    blur: float,
    kept: float,
) -> Images:
    """Flakes that fall steeply, before and behind, over a whitened image."""
    flakes = mean + spread * draws.normal(1, *images.shape[-2:])
    flakes = zoomed(flakes, max(1.0, zoom))
    flakes = flakes.masked_fill(flakes < least, 0).clamp(0, 1)
    angles = math.pi * (0.25 + 0.5 * draws.uniform())
    flakes = trail(flakes, angles, radius, blur)
    white = (images.mean(1, keepdim=True) * 1.5 + 0.5).maximum(images)
    return kept * images + (1 - kept) * white + flakes + flakes.flip(2, 3)


def frost(images: Images, draws: PerImageRandom, kept: float, ice: float) -> Images:
    """Needles of ice that grow from the border, tinted, added to a darkened image."""
    h, w = images.shape[-2:]
    rows, columns = grid(images)
    # needles: noise drawn out along a direction that turns slowly over the image
    turn = 2 * math.pi * _fractal(draws, h, w, first=2, octaves=3, decay=2.0)
    fine = _fractal(draws, h, w, first=12, octaves=5, decay=1.3)[:, None]
    ridges = torch.zeros_like(fine)
    length = max(2, round(min(h, w) / 14))
    for step in range(-length, length + 1):
        ridges += at(fine, rows + step * turn.sin(), columns + step * turn.cos())
    ridges = _to_unit(ridges[:, 0])
    ridges = (1 - (2 * ridges - 1).abs()) ** 3
    edge = torch.stack([rows / h, 1 - rows / h, columns / w, 1 - columns / w]).amin(0)
    patches = _fractal(draws, h, w, first=3, octaves=5, decay=1.8)
    cover = (1.5 * patches + 0.5 - 2.2 * edge).clamp(0, 1)
    amount = (cover * (0.35 + 0.65 * ridges) + 0.25 * ridges * cover.sqrt()).clamp(0, 1)
    tint = images.new_tensor(ICE if images.shape[1] == 3 else [1.0] * images.shape[1])
    return kept * images + ice * amount[:, None] * tint[:, None, None]


def fog(images: Images, draws: PerImageRandom, thickness: float, decay: float) -> Images:
    """Clouds of all sizes added to the image, which keeps its brightest value."""
    clouds = _fractal(draws, *images.shape[-2:], first=1, octaves=8, decay=decay)[:, None]
    brightest = images.flatten(1).amax(1)[:, None, None, None]
    return (images + thickness * clouds) * brightest / (brightest + thickness)


def brightness(images: Images, draws: PerImageRandom, more: float) -> Images:  # noqa: ARG001
    """A larger value of hue, saturation and value."""
    value = images.amax(1, keepdim=True)
    brighter = (value + more).clamp(max=1)
    return torch.where(value > 0, images * brighter / value.clamp(min=1e-6), brighter)


def _fractal(
    draws: PerImageRandom, h: int, w: int, *, first: int, octaves: int, decay: float
) -> Float[Tensor, "n h w"]:
    """Noise of many sizes, the finer the weaker by `decay`, from 0 to 1."""
    total, weight = 0.0, 1.0
    for octave in range(octaves):
        cells = first * 2**octave + 1
        if octave and cells > 2 * max(h, w):
            break
        coarse = draws.uniform(1, cells, cells)
        total = total + weight * F.interpolate(coarse, (h, w), mode="bicubic", align_corners=True)[:, 0]
        weight /= decay
    assert isinstance(total, Tensor)
    return _to_unit(total)


def _to_unit(values: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    low, high = values.flatten(1).amin(1), values.flatten(1).amax(1)
    return (values - low[:, None, None]) / (high - low).clamp(min=1e-6)[:, None, None]
