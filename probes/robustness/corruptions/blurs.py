"""Defocus, glass, motion and zoom blur (ImageNet-C), and the resampling that they share."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attacks.per_image_rng import PerImageRandom

Images = Float[Tensor, "n c h w"]


def defocus_blur(images: Images, draws: PerImageRandom, radius: float, alias: float) -> Images:  # noqa: ARG001
    """Convolution with a disk, whose edge is smoothed."""
    reach = math.ceil(radius + 3 * alias)
    axis = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    disk = (radius + 0.5 - torch.hypot(axis[:, None], axis[None])).clamp(0, 1)
    disk = gaussian_blur(disk[None, None], alias)[0, 0]
    return convolved(images, disk / disk.sum())


def glass_blur(images: Images, draws: PerImageRandom, spread: float, reach: float, rounds: float) -> Images:
    """Each pixel takes the colour of one nearby, again and again, between two slight blurs."""
    h, w = images.shape[-2:]
    found = gaussian_blur(images, spread)
    rows, columns = grid(images)
    for _ in range(round(rounds)):
        shifts = draws.uniform(2, h, w) * (2 * round(reach) + 1) - round(reach) - 0.5
        y, x = (
            (place + shift.round()) for place, shift in zip((rows, columns), shifts.unbind(1), strict=True)
        )
        flat = (y.clamp(0, h - 1) * w + x.clamp(0, w - 1)).long().flatten(1)
        found = found.flatten(2).gather(2, flat[:, None].expand(-1, images.shape[1], -1)).view(images.shape)
    return gaussian_blur(found, spread)


def motion_blur(images: Images, draws: PerImageRandom, radius: float, spread: float) -> Images:
    """A trail in a direction of each image's own, within 45 degrees of the horizontal."""
    return trail(images, (draws.uniform() - 0.5) * (math.pi / 2), radius, spread)


def zoom_blur(images: Images, draws: PerImageRandom, largest: float) -> Images:  # noqa: ARG001
    """The mean of the image and its enlargements up to a factor."""
    count = max(2, round((largest - 1) / 0.02) + 1)
    factors = [1 + (largest - 1) * place / (count - 1) for place in range(count)]
    zooms = torch.stack([zoomed(images, factor) for factor in factors])
    return (images + zooms.sum(0)) / (count + 1)


def trail(images: Images, angles: Float[Tensor, "n"], radius: float, spread: float) -> Images:
    """The mean over places behind each pixel, along a line, weighted by half a Gaussian."""
    taps = torch.arange(2 * max(1, round(radius)) + 1, device=images.device, dtype=images.dtype)
    weights = (-(taps**2) / (2 * spread**2)).exp()
    rows, columns = grid(images)
    found = torch.zeros_like(images)
    for tap, weight in zip(taps.tolist(), (weights / weights.sum()).tolist(), strict=True):
        y, x = (tap * part[:, None, None] for part in (angles.sin(), angles.cos()))
        found += weight * at(images, rows + y, columns + x)
    return found


def zoomed(images: Images, factor: float) -> Images:
    """The middle of each image, enlarged to its size."""
    rows, columns = grid(images)
    middles = [(side - 1) / 2 for side in images.shape[-2:]]
    y, x = (
        middle + (place - middle) / factor for middle, place in zip(middles, (rows, columns), strict=True)
    )
    return at(images, y.expand(len(images), -1, -1), x.expand(len(images), -1, -1))


def grid(images: Images) -> tuple[Float[Tensor, "1 h w"], Float[Tensor, "1 h w"]]:
    """The row and the column of each pixel."""
    axes = (torch.arange(side, device=images.device, dtype=images.dtype) for side in images.shape[-2:])
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    return rows[None], columns[None]


def at(images: Images, y: Float[Tensor, "n h w"], x: Float[Tensor, "n h w"]) -> Images:
    """The images at places in pixels, linear between pixels, mirrored at the borders."""
    h, w = images.shape[-2:]
    places = torch.stack([2 * x / max(1, w - 1) - 1, 2 * y / max(1, h - 1) - 1], 3)
    return F.grid_sample(images, places, padding_mode="reflection", align_corners=True)


def gaussian_blur(images: Images, spread: float) -> Images:
    """Convolution with a Gaussian, borders repeated."""
    if spread < 1e-3:
        return images
    reach = max(1, math.ceil(3 * spread))
    axis = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = (-(axis**2) / (2 * spread**2)).exp()
    weights /= weights.sum()
    return convolved(convolved(images, weights[:, None]), weights[None])


def convolved(images: Images, kernel: Float[Tensor, "i j"]) -> Images:
    """Convolution of each channel, borders repeated."""
    i, j = kernel.shape
    padded = F.pad(images, (j // 2, j // 2, i // 2, i // 2), mode="replicate")
    channels = images.shape[1]
    return F.conv2d(padded, kernel.expand(channels, 1, i, j).contiguous(), groups=channels)
