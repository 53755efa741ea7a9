"""Calibration: expected calibration error and temperature scaling (Guo et al. 2017)."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.counted import counted

BINS = 15
_SPAN, _HALVINGS = 16.0, 80  # logarithms of the inverse temperature, and how far its bracket shrinks


class Calibration(NamedTuple):
    """Confidence and accuracy in bins of equal width.

    Args:
        error: the expected calibration error: the mean difference of accuracy and confidence, by images.
        counts: images in each bin.
        confidence: the mean of each bin; NaN without images.
        accuracy: of each bin.
    """

    error: float
    counts: Int[Tensor, "bins"]
    confidence: Float[Tensor, "bins"]
    accuracy: Float[Tensor, "bins"]


def calibration(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, "n"], *, bins: int = BINS
) -> Calibration:
    """Whether confidence matches accuracy: the expected calibration error, and its bins.

    A confidence on an edge counts to the bin below it, 1 to the last. Guo et al. 2017,
    arxiv.org/abs/1706.04599.

    Raises:
        ValueError: no images, probabilities outside [0, 1], labels that are no classes, or no bins.
    """
    _check(probabilities, labels, "probabilities")
    if bins < 1:
        raise ValueError(f"bins={bins}; wanted at least 1")
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        low, high = float(probabilities.min()), float(probabilities.max())
        raise ValueError(
            f"probabilities from {low:.3g} to {high:.3g}; wanted all from 0 to 1, such as logits.softmax(1)"
        )
    confidence, answers = probabilities.double().max(1)
    right = (answers == labels.to(answers.device)).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    empty = torch.zeros(bins, dtype=torch.float64, device=place.device)
    counts = torch.bincount(place, minlength=bins)
    sure, correct = (empty.index_add(0, place, own) for own in (confidence, right))
    return Calibration(
        float((sure - correct).abs().sum() / len(place)), counts, sure / counts, correct / counts
    )


def fitted_temperature(logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> float:
    """The temperature by which logits are to be divided so that the cross-entropy is the smallest.

    Above 1 for an overconfident network. Fit it to images that the network was not trained on, and measure on
    others. The predicted classes stay the same. Guo et al. 2017, arxiv.org/abs/1706.04599.

    Raises:
        ValueError: no images, logits that are not finite, labels that are no classes, or no temperature is
            the best: all images are classified correctly, or the network is no better than chance.
    """
    _check(logits, labels, "logits")
    if wrong := int((~logits.isfinite()).any(1).sum()):
        raise ValueError(f"logits with NaN or infinity for {wrong} of {counted(len(logits), 'image')}")
    logits, labels = logits.double(), labels.to(logits.device)
    own = logits.gather(1, labels[:, None])[:, 0]
    if bool((own >= logits.amax(1)).all()):
        raise ValueError(
            f"all of {counted(len(logits), 'image')} are classified correctly; a temperature can only be "
            "fitted where some are misclassified"
        )
    if float((own - logits.mean(1)).mean()) <= 0:
        raise ValueError(
            "the logits of the true classes are no larger than the others on average; a temperature can only "
            "be fitted to a network that is better than chance"
        )
    # the cross-entropy is convex in 1 / temperature, and this is its slope's sign
    low, high = -_SPAN, _SPAN
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = ((math.exp(middle) * logits).softmax(1) * logits).sum(1)
        low, high = (low, middle) if float((expected - own).mean()) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def scaled_by_halves(logits: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Float[Tensor, "n k"]:
    """Logits divided by a temperature that was fitted to the other half of the images, every second one.

    So the error on all of them is never measured on images that the temperature was fitted to.

    Raises:
        ValueError: as for `fitted_temperature`, of one of the halves.
    """
    scaled = logits.double().clone()
    for half in (0, 1):
        scaled[half::2] /= fitted_temperature(logits[1 - half :: 2], labels[1 - half :: 2])
    return scaled


def _check(values: Float[Tensor, "n k"], labels: Int[Tensor, "n"], what: str) -> None:
    """Check that there are images, and a class of each."""
    if values.dim() != 2 or not len(values) or labels.shape != values.shape[:1]:
        raise ValueError(
            f"{what} {tuple(values.shape)} and labels {tuple(labels.shape)}; wanted [images, classes] of at "
            "least one image, and a label for each"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= values.shape[1]:
        raise ValueError(f"labels from {low} to {high}; there are {values.shape[1]} classes, from 0")
