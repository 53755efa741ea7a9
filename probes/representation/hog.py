"""Histograms of oriented gradients (HOG), as maps: the classical features to compare layers with."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ORIENTATIONS = 9


class HOG(nn.Module):
    """Histograms of the directions of gradients in cells, each of a block of 2 x 2 cells of length 1.

    Puts out [n, 36, rows - 1, columns - 1]: 9 directions from 0 to 180 degrees, a gradient sharing its length
    between the two nearest, of each of the four cells of a block. Colours are averaged. Dalal & Triggs 2005.

    Args:
        cell: the side of a cell, in pixels.
    """

    def __init__(self, cell: int = 8):
        super().__init__()
        self.cell = cell

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 36 rows columns"]:
        """The maps of images, which have at least two cells a side."""
        grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
        along = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
        place = torch.atan2(along, across).remainder(math.pi) / math.pi * ORIENTATIONS
        bins = torch.arange(ORIENTATIONS, device=images.device).view(1, -1, 1, 1)
        apart = (place - bins).abs()
        share = (1 - torch.minimum(apart, ORIENTATIONS - apart)).clamp(min=0)
        cells = F.avg_pool2d(share * torch.hypot(across, along), self.cell)
        corners = (
            cells[..., r : r + cells.shape[2] - 1, c : c + cells.shape[3] - 1] for r in (0, 1) for c in (0, 1)
        )
        blocks = torch.cat(list(corners), 1)
        return blocks / (blocks.square().sum(1, keepdim=True) + 1e-6).sqrt()
