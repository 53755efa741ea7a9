"""Stratified splits, folds and few-shot subsets."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def set_aside(
    labels: Int[Tensor, "n"], *, share: float, seed: int
) -> tuple[Int[Tensor, "kept"], Int[Tensor, "aside"]]:
    """Indices to keep and indices set aside, both in order.

    Every class of two images or more has at least one on each side; a class of one keeps it.
    """
    kept, aside = [], []
    for members in _shuffled(labels, seed=seed):
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        aside.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values, torch.cat(aside).sort().values


def folded(
    labels: Int[Tensor, "n"], classes: Sequence[str], *, fold: tuple[int, int], seed: int
) -> tuple[Int[Tensor, "kept"], Int[Tensor, "aside"]]:
    """Indices to keep and, set aside, those of one fold; both in order.

    `fold` is its number, from 0, and how many there are. Folds are disjoint; their sizes, in total and for
    each class, differ by at most one image. ValueError unless every class has an image for every fold.
    """
    number, folds = fold
    if folds < 2:
        raise ValueError(f"fold is (number, folds) with 2 folds or more; got {fold}")
    if not 0 <= number < folds:
        raise ValueError(f"fold is (number, folds), numbered from 0 to {folds - 1}; got {fold}")
    if lacking := _scarce(labels, classes, folds):
        raise ValueError(f"each of {folds} folds needs an image of every class; there are {lacking}")
    # round robin, on from class to class
    order = torch.cat(_shuffled(labels, seed=seed))
    aside = torch.arange(len(order)) % folds == number
    return order[~aside].sort().values, order[aside].sort().values


def few(labels: Int[Tensor, "n"], classes: Sequence[str], *, per_class: int, seed: int) -> Int[Tensor, "m"]:
    """Indices of `per_class` images of every class, in order; with one seed, more images include fewer.

    ValueError if a class has fewer.
    """
    if per_class < 1:
        raise ValueError(
            f"per_class is the number of training images of each class, at least 1; got {per_class}"
        )
    if lacking := _scarce(labels, classes, per_class):
        raise ValueError(f"wanted {per_class} training images of every class; there are {lacking}")
    return torch.cat([members[:per_class] for members in _shuffled(labels, seed=seed)]).sort().values


def inverse_frequency(labels: Int[Tensor, "n"], classes: Sequence[str]) -> Float[Tensor, "k"]:
    """A weight for each class, in inverse proportion to its images; their mean is 1.

    ValueError if a class has none.
    """
    if missing := _scarce(labels, classes, 1):
        raise ValueError(f"class weights are inverse to the number of images, but there are {missing}")
    weights = 1 / labels.bincount(minlength=len(classes))
    return weights / weights.mean()


def _shuffled(labels: Int[Tensor, "n"], *, seed: int) -> list[Int[Tensor, "_"]]:
    generator = torch.Generator().manual_seed(seed)
    every = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    return [members[torch.randperm(len(members), generator=generator)] for members in every]


def _scarce(labels: Int[Tensor, "n"], classes: Sequence[str], wanted: int) -> str:
    counts = labels.bincount(minlength=len(classes)).tolist()
    return ", ".join(
        f"{count} of {name!r}" for name, count in zip(classes, counts, strict=True) if count < wanted
    )
