"""Contrast, elastic transform, pixelation and JPEG compression (ImageNet-C)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.robustness.corruptions.blurs import at, grid

Images = Float[Tensor, "n c h w"]
LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
"""The quantisation of the JPEG standard at quality 50, row by row."""
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def contrast(images: Images, draws: PerImageRandom, share: float) -> Images:  # noqa: ARG001
    """Contrast: each value's distance to its channel's mean, times a factor."""
    means = images.mean((2, 3), keepdim=True)
    return means + share * (images - means)


def elastic_transform(
    images: Images, draws: PerImageRandom, height: float, spread: float, shear: float
) -> Images:
    """A random affine map by up to `shear` pixels, and waves of that height and width."""
    h, w = images.shape[-2:]
    rows, columns = grid(images)
    third = min(h, w) / 3
    corners = [[h / 2 + a * third, w / 2 + b * third] for a, b in ((1, 1), (1, -1), (-1, -1))]
    ends = torch.tensor(corners, dtype=images.dtype, device=images.device)
    begins = ends + shear * (2 * draws.uniform(3, 2) - 1)
    one = torch.ones_like(begins[..., :1])
    back = torch.linalg.solve(torch.cat([ends.expand_as(begins), one], 2), begins)
    places = torch.stack([rows.expand(len(images), -1, -1), columns.expand(len(images), -1, -1)], 3)
    places = torch.cat([places, torch.ones_like(places[..., :1])], 3).flatten(1, 2) @ back
    y, x = places.unflatten(1, (h, w)).unbind(3)
    waves = height * _waves(2 * draws.uniform(2, h, w) - 1, spread)
    return at(images, y + waves[:, 0], x + waves[:, 1])


def pixelate(images: Images, draws: PerImageRandom, share: float) -> Images:  # noqa: ARG001
    """The image at a share of its size, enlarged without interpolation."""
    h, w = images.shape[-2:]
    small = F.interpolate(images, (max(1, int(h * share)), max(1, int(w * share))), mode="area")
    return F.interpolate(small, (h, w), mode="nearest-exact")


def jpeg_compression(images: Images, draws: PerImageRandom, quality: float) -> Images:  # noqa: ARG001
    """JPEG compression at a quality: colours at half the size, blocks of 8 by 8 quantised.

    Images of other than three channels are compressed channel by channel, as grey ones.
    """
    quality = round(quality)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    if images.shape[1] != 3:
        return _quantised(images.flatten(0, 1)[:, None], LUMINANCE, scale).view(images.shape)
    mix = images.new_tensor(TO_YCC)
    bright, colours = torch.einsum("kc,nchw->nkhw", mix, images).split([1, 2], 1)
    h, w = images.shape[-2:]
    small = F.avg_pool2d(F.pad(colours, (0, w % 2, 0, h % 2), mode="replicate"), 2)
    small = _quantised((small + 0.5).flatten(0, 1)[:, None], CHROMINANCE, scale).view(small.shape) - 0.5
    colours = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)[..., :h, :w]
    both = torch.cat([_quantised(bright, LUMINANCE, scale), colours], 1)
    return torch.einsum("kc,nchw->nkhw", torch.linalg.inv(mix), both)


def _quantised(
    channels: Float[Tensor, "m 1 h w"], table: tuple[int, ...], scale: float
) -> Float[Tensor, "m 1 h w"]:
    """Blocks of 8 by 8 by their cosine transform, rounded to steps, and back."""
    h, w = channels.shape[-2:]
    padded = F.pad(channels, (0, -w % 8, 0, -h % 8), mode="replicate") * 255 - 128
    blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)
    cosines = _cosines(channels)
    steps = channels.new_tensor(table).view(8, 8)
    steps = ((steps * scale + 50) / 100).floor().clamp(1, 255)
    rounded = (cosines @ blocks @ cosines.T / steps).round() * steps
    found = ((cosines.T @ rounded @ cosines).round() + 128).clamp(0, 255) / 255
    return found.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)[..., :h, :w]


def _cosines(like: Tensor) -> Float[Tensor, "8 8"]:
    """The orthogonal cosine transform of eight numbers."""
    places = torch.arange(8, dtype=like.dtype, device=like.device)
    rows = (math.pi / 8 * places[:, None] * (places[None] + 0.5)).cos() / 2
    rows[0] /= math.sqrt(2)
    return rows


def _waves(noise: Float[Tensor, "n 2 h w"], spread: float) -> Float[Tensor, "n 2 h w"]:
    """Noise blurred by a Gaussian of any width, as if repeated beyond the borders."""
    h, w = noise.shape[-2:]
    y, x = torch.fft.fftfreq(h, device=noise.device), torch.fft.rfftfreq(w, device=noise.device)
    weights = (-2 * math.pi**2 * spread**2 * (y[:, None] ** 2 + x[None] ** 2)).exp()
    return torch.fft.irfft2(torch.fft.rfft2(noise) * weights, (h, w))
