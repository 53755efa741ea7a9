"""Faithfulness of attribution maps: deletion and insertion curves, and infidelity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import checked
from fulgurite.probes.attribution.perturbations import Fill, Part, filling, scoring, unaltered
from fulgurite.probes.counted import counted
from fulgurite.probes.counter_random import normal, uniform
from fulgurite.probes.objectives import Objective

Mode = Literal["deletion", "insertion"]
Perturbation = Literal["squares", "noise"]


@dataclass(frozen=True)
class Curves:
    """The objective of each image as its pixels are hidden, or shown, those that a map ranks highest first.

    Args:
        shares: of the pixels that are hidden, or shown, at each point: from 0 to 1.
        deletion: the values with that share hidden; a faithful map's fall early.
        insertion: the values with that share alone visible; a faithful map's rise early.
    """

    shares: Float[Tensor, "points"]
    deletion: Float[Tensor, "n points"]
    insertion: Float[Tensor, "n points"]

    @property
    def deletion_area(self) -> Float[Tensor, "n"]:
        """The area under each deletion curve: the smaller, the more faithful the map."""
        return area(self.deletion, self.shares)

    @property
    def insertion_area(self) -> Float[Tensor, "n"]:
        """The area under each insertion curve: the larger, the more faithful the map."""
        return area(self.insertion, self.shares)


def curves(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective,
    maps: Mapping[str, Float[Tensor, "m d u v"]],
    *,
    steps: int = 20,
    fill: Fill = 0.0,
    progress: str | None = None,
) -> dict[str, Curves]:
    """Deletion and insertion curves of several maps of the same images, at `steps` + 1 points, by name.

    Equal values of a map are ranked in the order of the pixels. Petsiuk et al. 2018,
    arxiv.org/abs/1806.07421. Costs 2 (steps - 1) forward passes for each map, and two more, which all maps
    share.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        objective: a number per image; a probability makes areas of several images comparable.
        maps: by name, one channel each: how much each pixel matters, see `importance`.
        steps: from the whole image to nothing.
        fill: what hides a pixel: a level (0 is black), "grey", the "mean" colour, or the image's "blur".
        progress: a label for a progress bar.

    Raises:
        ValueError: maps of another size than the images, or fewer than one step.
    """
    if not isinstance(maps, Mapping):
        raise TypeError(
            f"maps is a {type(maps).__name__}; wanted a dict of maps by name, after the objective"
        )
    found = _curves(network, images, objective, maps, ("deletion", "insertion"), steps, fill, progress)
    points = shares(images.shape[2] * images.shape[3], steps).to(images)
    return {name: Curves(points, *own) for name, own in zip(maps, found, strict=True)}


def curve(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective,
    maps: Float[Tensor, "n 1 h w"],
    *,
    mode: Mode = "deletion",
    steps: int = 20,
    fill: Fill = 0.0,
    progress: str | None = None,
) -> Float[Tensor, "n points"]:
    """One of the curves of one map: see `curves`; its x coordinates are `shares(pixels, steps)`.

    Costs steps + 1 forward passes.
    """
    if mode not in ("deletion", "insertion"):
        raise ValueError(f'mode={mode!r}; wanted "deletion" or "insertion"')
    return _curves(network, images, objective, {"": maps}, (mode,), steps, fill, progress)[0][0]


def shares(pixels: int, steps: int) -> Float[Tensor, "points"]:
    """The shares of the pixels at which a curve has its points, in whole pixels, rounded up."""
    return _counts(pixels, steps) / pixels


def area(
    curves: Float[Tensor, "n points"], shares: Float[Tensor, "points"] | None = None
) -> Float[Tensor, "n"]:
    """The area under each curve over its `shares`; over even steps from 0 to 1 without them."""
    if shares is None:
        return torch.trapezoid(curves, dx=1 / (curves.shape[1] - 1))
    return torch.trapezoid(curves, shares.to(curves))


def infidelity(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective,
    maps: Mapping[str, Float[Tensor, "m _ u v"]],
    *,
    by: Perturbation = "squares",
    draws: int = 50,
    spread: float = 0.2,
    fill: Fill = 0.0,
    scaled: bool = True,
    seed: int = 0,
    progress: str | None = None,
) -> dict[str, Float[Tensor, "n"]]:
    """How badly each map predicts the change of the objective under random perturbations, by name.

    The mean squared difference between the map's prediction, its inner product with the perturbation, and the
    change itself. If `scaled`, each map is multiplied by the best factor for the image first, and the result
    divided by the mean squared change: 0 where the changes are proportional to the predictions, 1 where the
    map predicts nothing. Yeh et al. 2019, arxiv.org/abs/1901.09392. Costs `draws` + 1 forward passes for all
    maps together.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        objective: a number per image.
        maps: by name, as the methods return them, signed; a single channel applies to all channels.
        by: random squares are hidden, a sixteenth of the side to half of it wide; or Gaussian noise is
            subtracted from all pixels.
        draws: how many perturbations, the same for each image.
        spread: of the noise, its standard deviation in pixels.
        fill: what replaces hidden squares.
        scaled: see above; without it, it is the number of the paper, in the objective's units squared.
        seed: draws the perturbations.
        progress: a label for a progress bar.

    Raises:
        ValueError: maps of another size than the images, no draws, or another kind of perturbation.
    """
    images = checked(images)
    if draws < 1 or spread <= 0 or by not in ("squares", "noise"):
        raise ValueError(
            f'by={by!r}, draws={draws}, spread={spread}; wanted "squares" or "noise", at least one draw, and '
            "a spread above 0"
        )
    for name, own in maps.items():
        _check_map(name, own, images, channels=(1, images.shape[1]))
    hidden = filling(images, fill)
    changes = images.new_zeros(len(images), draws)
    predicted = {name: torch.zeros_like(changes) for name in maps}
    with scoring(network, objective, images, copies=draws) as score, torch.no_grad():
        before = unaltered(score, images)[0]
        for part in score.parts(draws, progress=progress):
            rows, places = part.rows, part.places
            if by == "noise":
                taken = spread * _noise(seed, part, images)
            else:
                taken = _squares(seed, places, images) * (images - hidden)[rows]
            changes[rows, places] = before[rows] - score(images[rows] - taken, rows)[0]
            for name, own in maps.items():
                predicted[name][rows, places] = (own[rows].to(taken) * taken).flatten(1).sum(1)
    return {
        name: _error(own.double(), changes.double(), scaled).to(images) for name, own in predicted.items()
    }


def _error(
    predicted: Float[Tensor, "n d"], changes: Float[Tensor, "n d"], scaled: bool
) -> Float[Tensor, "n"]:
    if not scaled:
        return (predicted - changes).square().mean(1)
    tiny = torch.finfo(torch.float64).tiny
    factor = (predicted * changes).sum(1) / predicted.square().sum(1).clamp(min=tiny)
    rest = (factor[:, None] * predicted - changes).square().sum(1)
    return rest / changes.square().sum(1).clamp(min=tiny)


def _noise(seed: int, part: Part, images: Tensor) -> Float[Tensor, "m c h w"]:
    numbers = torch.arange(part.copies.start, part.copies.stop, device=images.device)
    return normal(seed, numbers, *images.shape[1:]).to(images)[part.places - part.copies.start]


def _squares(seed: int, numbers: Int[Tensor, "m"], images: Tensor) -> Float[Tensor, "m 1 h w"]:
    """1 within a random square, which may reach over the edge by half, and 0 elsewhere."""
    drawn = uniform(seed, numbers, 3).to(images)
    height, width = images.shape[2:]
    half = max(1.0, min(height, width) / 4) * (0.125 + 0.875 * drawn[:, :1])
    down, across = (
        ((torch.arange(side, device=images.device) + 0.5 - place * side).abs() <= half)
        for side, place in ((height, drawn[:, 1:2]), (width, drawn[:, 2:]))
    )
    return (down[:, :, None] & across[:, None, :])[:, None].to(images)


def _curves(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objective,
    maps: Mapping[str, Float[Tensor, "m d u v"]],
    modes: tuple[Mode, ...],
    steps: int,
    fill: Fill,
    progress: str | None,
) -> list[list[Float[Tensor, "n points"]]]:
    images = checked(images)
    if steps < 1:
        raise ValueError(f"{steps} steps of a curve; wanted at least 1 step")
    for name, own in maps.items():
        _check_map(name, own, images, channels=(1,))
    if not maps:
        return []
    hidden = filling(images, fill)
    ranks = torch.stack([_ranks(own) for own in maps.values()])
    counts = _counts(ranks[0, 0].numel(), steps).tolist()
    # which map, how many pixels, and whether these are shown: the whole image and nothing once for all maps
    ends = [(0, 0, False), (0, 0, True)]
    between = [
        (k, count, mode == "insertion") for k in range(len(maps)) for mode in modes for count in counts[1:-1]
    ]
    which, many, inserted = torch.tensor([*ends, *between], device=images.device).unbind(1)
    with scoring(network, objective, images, copies=len(which)) as score, torch.no_grad():
        values = images.new_zeros(len(images), len(which))
        for rows, places, *_ in score.parts(len(which), progress=progress):
            first = ranks[which[places], rows] < many[places][:, None, None, None]
            shown = first == inserted[places].bool()[:, None, None, None]
            values[rows, places] = score(torch.where(shown, images[rows], hidden[rows]), rows)[0]
    ends_of = {"deletion": (values[:, :1], values[:, 1:2]), "insertion": (values[:, 1:2], values[:, :1])}
    parts = iter(values[:, 2:].split(steps - 1, 1) if steps > 1 else [values[:, 2:]] * len(maps) * len(modes))
    return [[torch.cat([ends_of[mode][0], next(parts), ends_of[mode][1]], 1) for mode in modes] for _ in maps]


def _ranks(maps: Float[Tensor, "n 1 h w"]) -> Int[Tensor, "n 1 h w"]:
    order = maps.detach().flatten(1).argsort(dim=1, descending=True, stable=True)
    return order.argsort(1).view_as(maps)


def _counts(pixels: int, steps: int) -> Int[Tensor, "points"]:
    return -(-torch.arange(steps + 1) * pixels // steps)


def _check_map(name: str, maps: Tensor, images: Tensor, channels: tuple[int, ...]) -> None:
    if (
        maps.dim() != 4
        or maps.shape[1] not in channels
        or (len(maps), *maps.shape[2:])
        != (
            len(images),
            *images.shape[2:],
        )
    ):
        raise ValueError(
            f"maps {f'of {name} ' * bool(name)}of {tuple(maps.shape)} for images of {tuple(images.shape)}; "
            f"wanted {' or '.join(counted(own, 'channel') for own in sorted({*channels}))} "
            "and the images' size"
            + "; join the channels of a gradient by importance(name, maps)"
            * (channels == (1,))
        )
