"""Strongest images along units of a code and along random directions, and how pure in class they are."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.activations.patches import unit_purities
from fulgurite.probes.activations.top_responses import random_directions


class StrongestImages(NamedTuple):
    """The images whose codes respond most to each unit, strongest first.

    Args:
        places: of the images.
        values: the responses.
    """

    places: Int[Tensor, "units k"]
    values: Float[Tensor, "units k"]

    def purity(self, labels: Int[Tensor, "n"]) -> "Purity":
        """How often the strongest images of a unit are of one class."""
        found = unit_purities(labels.to(self.places.device)[self.places], self.values)
        found = found[found.isfinite()]
        if not len(found):
            return Purity(torch.nan, torch.nan, 0)
        error = float(found.std() / len(found) ** 0.5) if len(found) > 1 else torch.nan
        return Purity(float(found.mean()), error, len(found))


class Purity(NamedTuple):
    """The share of a unit's strongest images that are of its most frequent class, from 1 / k to 1.

    Args:
        mean: over units; those that respond to nothing are left out. NaN where all are.
        error: the standard error of the mean.
        units: how many.
    """

    mean: float
    error: float
    units: int


class Directions(NamedTuple):
    """Units of a code and random directions in its space.

    Args:
        units: of each value of the code on its own.
        random: of as many random directions, or of more or fewer of them.
    """

    units: StrongestImages
    random: StrongestImages

    def purities(self, labels: Int[Tensor, "n"], *, seed: int = 0) -> dict[str, Purity]:
        """The class purity of units, of random directions, and, to compare with, of images drawn at random.

        If units are purer than random directions, they are a better basis than others; if both are as pure
        as images drawn at random, the codes carry no information about the classes.

        Args:
            labels: the class of each image.
            seed: of the images drawn at random.
        """
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
        chance = self.random.purity(labels[order])
        return {
            "units": self.units.purity(labels),
            "random directions": self.random.purity(labels),
            "images drawn at random": chance,
        }


def strongest_along(
    codes: Float[Tensor, "n d"], *, k: int = 9, directions: int | None = None, seed: int = 0
) -> Directions:
    """The images whose codes respond most to each unit of the code, and to random directions.

    A unit is a value of the code; a direction is a vector of length 1 drawn evenly from the sphere, whose
    response is its product with the code. Szegedy et al. 2013, arxiv.org/abs/1312.6199, found the strongest
    images along both as alike to the eye: see `Directions.purities` for a measure of it. It takes one product
    of the codes with the directions.

    Args:
        codes: one for each image.
        k: how many images.
        directions: how many random directions; as many as the code has values without it.
        seed: of the directions.

    Raises:
        ValueError: fewer images than `k`, no directions, or codes that are not finite or all equal.
    """
    count = codes.shape[1] if directions is None else directions
    if not 1 <= k <= len(codes) or count < 1:
        raise ValueError(
            f"{k} strongest of {len(codes)} images along {count} directions; wanted at least 1, and as many "
            "images"
        )
    if wrong := int((~codes.isfinite()).any(1).sum()):
        raise ValueError(f"{wrong} of {len(codes)} codes hold values that are not finite")
    if len(codes) > 1 and bool((codes == codes[0]).all()):
        raise ValueError(f"all {len(codes)} codes are equal, so that no image responds more than another")
    drawn = random_directions(count, codes.shape[1], seed).to(codes)
    return Directions(_strongest(codes, k), _strongest(codes @ drawn.T, k))


def _strongest(responses: Float[Tensor, "n units"], k: int) -> StrongestImages:
    # a stable sort: of equal responses, the first image
    values, places = responses.sort(dim=0, descending=True, stable=True)
    return StrongestImages(places[:k].T.contiguous(), values[:k].T.contiguous())
