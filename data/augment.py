"""Augmentations on tensors: shifts and noise, drawn again for each image of a batch."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def shifted(
    images: Float[Tensor, "n c h w"], *, by: float, fill: Literal["zeros", "border"] = "zeros"
) -> Float[Tensor, "n c h w"]:
    """Each image moved by up to `by` pixels, fractions included, along each axis.

    What comes in from outside is black, or with `fill="border"` the nearest pixel of the image.
    """
    count, _, height, width = images.shape
    sides = images.new_tensor([width, height])
    moves = by * (2 * torch.rand(count, 2, device=images.device, dtype=images.dtype) - 1)
    steady = torch.eye(2, device=images.device, dtype=images.dtype).expand(count, 2, 2)
    # affine_grid spans an image by 2, from -1 to 1
    theta = torch.cat([steady, (2 * moves / sides)[:, :, None]], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode=fill, align_corners=False).clamp(0, 1)


def noisy(images: Float[Tensor, "n c h w"], *, spread: float) -> Float[Tensor, "n c h w"]:
    """Each image under Gaussian noise of its own strength: a standard deviation from 0 to `spread`."""
    strengths = spread * torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)
    return (images + strengths * torch.randn_like(images)).clamp(0, 1)


def flipped(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each image mirrored left to right with probability 1/2."""
    heads = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(heads, images.flip(-1), images)


def cropped(images: Float[Tensor, "n c h w"], *, padding: int) -> Float[Tensor, "n c h w"]:
    """A window of the images' own size, anywhere in each image after `padding` pixels of reflection."""
    count, channels, height, width = images.shape
    if not 0 <= padding < min(height, width):
        raise ValueError(
            f"padding reflects part of a {height} x {width} image, so 0 <= padding < its sides; got {padding}"
        )
    padded = F.pad(images, [padding] * 4, mode="reflect")
    top, left = torch.randint(2 * padding + 1, (2, count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    image = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
