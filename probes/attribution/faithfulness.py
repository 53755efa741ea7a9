"""Faithfulness of attribution maps: deletion and insertion curves."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.attribution.perturbations import Fill, filling, scoring
from fulgurite.probes.objectives import Objective


def curve(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective,
    maps: Float[Tensor, "n 1 h w"],
    *,
    mode: Literal["deletion", "insertion"] = "deletion",
    steps: int = 20,
    fill: Fill = 0.0,
    progress: str | None = None,
) -> Float[Tensor, "n points"]:
    """The objective at `steps` + 1 points, as the pixels go or come, those that the map calls highest first.

    With "deletion" they are hidden one part after the other, and a true map's curve falls early; with
    "insertion" they appear on a hidden image, and it rises early. `area` makes one number of it. Equal values
    of a map go in the order of the pixels. Petsiuk et al. 2018, arxiv.org/abs/1806.07421. Costs steps + 1
    forward passes.

    Raises:
        ValueError: maps of another size than the images, or fewer than one step.
    """
    images = checked(images)
    if (
        maps.shape != (len(images), 1, *images.shape[2:])
        or steps < 1
        or mode not in ("deletion", "insertion")
    ):
        raise ValueError(
            f"maps of {tuple(maps.shape)} for images of {tuple(images.shape)}, {steps} steps of {mode}; "
            'wanted maps of one channel and that size, at least 1 step, "deletion" or "insertion"'
        )
    hidden = filling(images, fill)
    order = maps.detach().flatten(1).argsort(dim=1, descending=True, stable=True)
    ranks = order.argsort(1).view_as(maps)
    gone = (torch.arange(steps + 1, device=images.device) * ranks[0].numel() / steps).round()
    with scoring(network, objective, images, copies=steps + 1) as score, torch.no_grad():
        values = images.new_zeros(len(images), steps + 1)
        for rows, places, *_ in score.parts(steps + 1, progress=progress):
            first = ranks[rows] < gone[places][:, None, None, None]
            shown = first if mode == "insertion" else ~first
            values[rows, places] = score(torch.where(shown, images[rows], hidden[rows]), rows)[0]
    return values


def area(curves: Float[Tensor, "n points"]) -> Float[Tensor, "n"]:
    """The area under each curve, over a way of length 1: the mean of the curve."""
    return torch.trapezoid(curves, dx=1 / (curves.shape[1] - 1))
