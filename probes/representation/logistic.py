"""Logistic regression of features, with regularisation chosen on held-out images."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from torch import Tensor

from fulgurite.probes.representation.linear import Head, check, check_penalties, folded, standardised

DECAYS = tuple(10.0**power for power in range(-6, 1))
STRICT = (*DECAYS, 10.0, 100.0)
"""Penalties to choose from where images are few and features many."""


def logistic(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    *,
    penalty: float | None = None,
    penalties: Sequence[float] = DECAYS,
    validation: tuple[Float[Tensor, "m d"], Int[Tensor, "m"]] | None = None,
    steps: int = 500,
) -> Head:
    """Multinomial logistic regression of standardised features.

    Minimises the mean cross-entropy + `penalty` / 2 x the squared length of the weights. Without a penalty,
    it is the one of `penalties` with the least cross-entropy on validation images: those given, or else every
    fifth of each class, after which all are fitted.

    Raises:
        ValueError: fewer than two images, features that are not finite, or a penalty that is not positive.
    """
    check(features, labels)
    check_penalties(penalties if penalty is None else [penalty])
    labels = labels.cpu().long()
    if penalty is None:
        aside = every_fifth(labels) if validation is None else torch.zeros(len(labels), dtype=torch.bool)
        others = validation or (features[aside], labels[aside])
        known = labels[~aside].unique()
        losses = {
            head.penalty: _loss(head, *others, known)
            for head in _path(features[~aside], labels[~aside], sorted(penalties, reverse=True), steps)
        }
        penalty = min(losses, key=lambda each: losses[each])
    return next(_path(features, labels, [penalty], steps))


def every_fifth(labels: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """A mask of about a fifth of each class, spread evenly over it; of one image of two to seven."""
    aside = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        places = (labels == label).nonzero()[:, 0]
        count = max(1, round(len(places) / 5)) if len(places) > 1 else 0
        aside[places[[(2 * place + 1) * len(places) // (2 * count) for place in range(count)]]] = True
    return aside


def _path(
    features: Float[Tensor, "n d"], labels: Int[Tensor, "n"], penalties: Sequence[float], steps: int
) -> Iterator[Head]:
    """The fit for each penalty; each begins where the one before ended."""
    standard, mean, scale = standardised(features)
    present, places = labels.unique(return_inverse=True)
    found = torch.zeros(standard.shape[1] + 1, len(present), dtype=torch.float64)
    for penalty in penalties:
        found = _fitted(standard, F.one_hot(places).double(), penalty, found, steps)
        weight = torch.zeros(standard.shape[1], int(labels.max()) + 1, dtype=torch.float64)
        bias = torch.full((weight.shape[1],), -math.inf, dtype=torch.float64)  # of a class without images
        weight[:, present], bias[present] = found[:-1], found[-1]
        yield folded(weight, bias, mean, scale, penalty)


def _fitted(
    standard: Float[Tensor, "n d"],
    wanted: Float[Tensor, "n k"],
    penalty: float,
    start: Float[Tensor, "e k"],
    steps: int,
) -> Float[Tensor, "e k"]:
    """The weights, and the biases below them."""
    x, hot = standard.numpy(), wanted.numpy()

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat.reshape(start.shape)[:-1], flat.reshape(start.shape)[-1]
        scores = x @ weight + bias
        scores -= scores.max(1, keepdims=True)
        powers = np.exp(scores)
        totals = powers.sum(1, keepdims=True)
        wrong = (powers / totals - hot) / len(x)
        cross = (np.log(totals[:, 0]) - (scores * hot).sum(1)).mean()
        slope = np.concatenate([x.T @ wrong + penalty * weight, wrong.sum(0, keepdims=True)])
        return float(cross + penalty / 2 * (weight**2).sum()), slope.ravel()

    limits = {"maxiter": steps, "gtol": 1e-7, "ftol": 1e-12}
    best = minimize(loss, start.numpy().ravel(), jac=True, method="L-BFGS-B", options=limits)
    return torch.from_numpy(best.x).view(start.shape)


def _loss(
    head: Head, features: Float[Tensor, "n d"], labels: Int[Tensor, "n"], known: Int[Tensor, "k"]
) -> float:
    """Cross-entropy on images of the classes that the head knows."""
    labels = labels.cpu().long()
    there = torch.isin(labels, known)
    return float(F.cross_entropy(head.scores(features[there]), labels[there])) if there.any() else 0.0
