"""Transferability of features to new classes, without training: H-Score and LogME."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

_ROUNDS, _CLOSE = 100, 1e-6


def h_score(
    features: Float[Tensor, "n d"], labels: Int[Tensor, "n"], *, shrinkage: float | None = None
) -> float:
    """How much of the features' covariance lies between the classes: tr(cov(f)^-1 cov(E[f | class])).

    From 0 to the number of classes less one, the larger the better. The covariance is shrunk to a multiple of
    the identity, and that between the classes by the same factor, so that few images with many features still
    give different scores. Bao et al. 2019, doi.org/10.1109/ICIP.2019.8803726; shrunk as Ibrahim et al. 2022,
    arxiv.org/abs/2110.06893.

    Args:
        features: of images.
        labels: of the same images.
        shrinkage: from 0 for none to 1; Ledoit & Wolf's estimate without it.

    Raises:
        ValueError: images of one class alone, features that are all equal or not finite, or a shrinkage
            outside [0, 1].
    """
    centred, labels = _centred(features, labels)
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage={shrinkage}; wanted 0 to 1")
    count, size = centred.shape
    alpha = float(ledoit_wolf_shrinkage(centred.numpy(), assume_centered=True))
    alpha = alpha if shrinkage is None else shrinkage
    trace = float(centred.square().sum()) / count / size
    # in the space that the images span; outside it, nothing lies between the classes
    _, lengths, axes = torch.linalg.svd(centred, full_matrices=False)
    kept = lengths > lengths[0] * 1e-7
    variances = lengths[kept].square() / count
    members = F.one_hot(labels).double()
    means = (members.T @ (centred @ axes[kept].T)) / members.sum(0)[:, None]
    between = (members.mean(0)[:, None] * means.square()).sum(0)
    return float(((1 - alpha) * between / ((1 - alpha) * variances + alpha * trace)).sum())


def log_me(features: Float[Tensor, "n d"], labels: Int[Tensor, "n"]) -> float:
    """The log evidence of a linear regression to the classes, for each image; the larger the better.

    Weights and noise are Gaussian, with the variances that make the labels of each class most likely; a mean
    over the classes, of 1 for its images and 0 for others. Features are used as they are, without an
    intercept, as by the authors. You et al. 2021, arxiv.org/abs/2102.11005.

    Raises:
        ValueError: images of one class alone, or features that are all equal or not finite.
    """
    _centred(features, labels)
    values = features.double().cpu()
    left, lengths, _ = torch.linalg.svd(values, full_matrices=False)
    names, labels = labels.cpu().unique(return_inverse=True)
    targets = F.one_hot(labels).double()
    powers, parts = lengths.square(), (left.T @ targets).square()
    rest = (targets.square().sum(0) - parts.sum(0)).clamp(min=0)
    found = [
        _evidence(powers, parts[:, k], float(rest[k]), *values.shape) / len(values) for k in range(len(names))
    ]
    return sum(found) / len(found)


def _evidence(powers: Float[Tensor, "r"], parts: Float[Tensor, "r"], rest: float, n: int, d: int) -> float:
    """Of one class: MacKay's fixed point of the precisions of weights and noise.

    `powers` are the squared singular values, `parts` the squared parts of the labels along them, `rest` what
    of the labels' square lies outside.
    """
    weights, noise = 1.0, 1.0
    for _ in range(_ROUNDS):
        before = weights / noise
        bent = powers + before
        gamma = float((powers / bent).sum())
        squared = float((powers * parts / bent.square()).sum())  # of the weights
        missed = rest + float((parts * (before / bent).square()).sum())
        weights, noise = gamma / max(squared, 1e-300), (n - gamma) / max(missed, 1e-300)
        if abs(weights / noise - before) <= _CLOSE * before:
            break
    bent = powers + weights / noise
    squared = float((powers * parts / bent.square()).sum())
    missed = rest + float((parts * (weights / noise / bent).square()).sum())
    determinant = float((noise * bent).log().sum()) + (d - len(powers)) * math.log(weights)
    precision = n * math.log(noise) + d * math.log(weights) - determinant
    return 0.5 * (precision - n * math.log(2 * math.pi) - noise * missed - weights * squared)


def _centred(features: Tensor, labels: Tensor) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
    """In float64, and labels from 0 without gaps."""
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features {tuple(features.shape)} and labels {tuple(labels.shape)}; wanted [images, features], "
            "and a label for each image"
        )
    if not len(features):
        raise ValueError("features of no image; wanted those of at least two classes")
    if not bool(features.isfinite().all()):
        raise ValueError("features that are not finite; wanted numbers")
    names, numbers = labels.cpu().unique(return_inverse=True)
    if len(names) < 2:
        raise ValueError("images of one class alone; wanted those of at least two")
    values = features.double().cpu()
    centred = values - values.mean(0)
    if float(centred.abs().max()) <= 1e-12 * float(values.abs().max()):
        raise ValueError("features that are all equal; wanted some that differ from image to image")
    return centred, numbers
