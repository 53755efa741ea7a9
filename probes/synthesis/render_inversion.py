"""Curves of inversions: relative error and PSNR over the layers."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import BACKGROUND, RGB
from fulgurite.probes.synthesis.inversion import Inversion


def curves(inversions: Mapping[str, Inversion], *, below: RGB | None = None) -> RGB:
    """Relative error and PSNR of each layer, side by side; under another picture, if one is given."""
    layers = [layer or "logits" for layer in inversions]
    means = [found.means() for found in inversions.values()]
    errors = category_plot(
        layers, {"mean": [100 * mean["relative_error"] for mean in means]}, ylabel="relative error, %"
    )
    decibels = category_plot(layers, {"mean": [mean["psnr"] for mean in means]}, ylabel="PSNR, dB")
    plots = torch.cat([_padded(errors, decibels.shape[1], errors.shape[2]), decibels], 2)
    if below is None:
        return plots
    width = max(plots.shape[2], below.shape[2])
    return torch.cat([_padded(part, part.shape[1], width) for part in (below, plots)], 1)


def _padded(pixels: RGB, height: int, width: int) -> Tensor:
    paper = torch.tensor(BACKGROUND, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    paper[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return paper
