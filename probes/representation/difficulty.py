"""Difficulty: accuracy and calibration by class, pairs that are confused, accuracy by size and texture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulgurite.probes.representation.calibration import calibration
from fulgurite.probes.representation.linear import Proportion


@dataclass(frozen=True)
class ClassDifficulty(Proportion):
    """How difficult one class is.

    Args:
        right: how many of its images are classified correctly.
        count: its images.
        label: its number.
        probability: the mean probability of the class on them.
        calibration_error: the expected calibration error on them.
        taken_for: the class that they are most often classified as instead; -1 where there is none.
        share: of its images are classified as that one.
    """

    label: int
    probability: float
    calibration_error: float
    taken_for: int
    share: float


@dataclass(frozen=True)
class Part(Proportion):
    """Images of similar size or texture, and how many are classified correctly.

    Args:
        right: how many of them are classified correctly.
        count: the images.
        low: the smallest value among them.
        high: the largest.
    """

    low: float
    high: float


def class_difficulty(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, "n"]
) -> Sequence[ClassDifficulty]:
    """Each class that has images, the hardest first: by accuracy, then by the probability of the class.

    Russakovsky et al. 2015, arxiv.org/abs/1409.0575, section 6.

    Raises:
        ValueError: no images, labels outside the classes, or probabilities outside [0, 1].
    """
    count = probabilities.shape[1]
    if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= count:
        raise ValueError(
            f"labels of {len(labels)} images for {count} classes; wanted some, from 0 to {count - 1}"
        )
    counts = confusion_counts(probabilities, labels)
    found = []
    for label in labels.unique().tolist():
        own, row = probabilities[labels == label], counts[label].clone()
        right, row[label] = int(row[label]), 0
        other = int(row.argmax()) if int(row.max()) else -1
        found.append(
            ClassDifficulty(
                label=label,
                count=len(own),
                right=right,
                probability=float(own[:, label].double().mean()),
                calibration_error=calibration(own, labels[labels == label]).error,
                taken_for=other,
                share=int(row.max()) / len(own),
            )
        )
    return sorted(found, key=lambda one: (one.accuracy, one.probability))


def confusion_counts(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Int[Tensor, "k k"]:
    """How many images of each class, by row, are classified as each class, by column."""
    count = probabilities.shape[1]
    places = labels * count + probabilities.argmax(1)
    return torch.bincount(places, minlength=count * count).view(count, count)


def confused_pairs(counts: Int[Tensor, "k k"]) -> Sequence[tuple[int, int, int, int]]:
    """Pairs of classes that are confused, most mistakes first.

    Each is two classes, how many images of the first are classified as the second, and of the second for the
    first. The first of the two is the one that is more often classified as the other.
    """
    wrong = counts - counts.diag().diag()
    pairs = [
        (one, other, int(wrong[one, other]), int(wrong[other, one]))
        for one, other in (wrong + wrong.T).triu(1).nonzero().tolist()
    ]
    pairs = [pair if pair[2] >= pair[3] else (pair[1], pair[0], pair[3], pair[2]) for pair in pairs]
    return sorted(pairs, key=lambda pair: (-pair[2] - pair[3], pair[:2]))


def texture_amount(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    """How much texture an image has: the mean absolute difference of neighbouring pixels, from 0 to 1.

    Differences are those of the mean over the channels, along rows and columns alike, which is the total
    variation per pixel. An image of one colour has 0.

    Raises:
        ValueError: images of fewer than 2 x 2 pixels.
    """
    if min(images.shape[2:]) < 2:
        raise ValueError(f"images of {images.shape[2]} x {images.shape[3]} pixels; wanted at least 2 x 2")
    luma = images.mean(1)
    return (luma.diff(dim=1).abs().mean((1, 2)) + luma.diff(dim=2).abs().mean((1, 2))) / 2


def accuracy_by(values: Float[Tensor, "n"], right: Bool[Tensor, "n"], *, parts: int = 5) -> Sequence[Part]:
    """Accuracy of images with small to large values, in parts of as many images each as ties allow.

    Images of equal values are in the same part.

    Raises:
        ValueError: no images, values that are not finite, or fewer than one part.
    """
    if not len(values) or parts < 1 or not bool(values.isfinite().all()):
        raise ValueError(
            f"{len(values)} values in {parts} parts; wanted some finite ones, and at least 1 part"
        )
    order = values.argsort()
    sorted_values, found, start = values[order], list[Part](), 0
    for part in range(1, parts + 1):
        end = max(start, round(len(values) * part / parts))
        while 0 < end < len(values) and sorted_values[end] == sorted_values[end - 1]:
            end += 1
        if end > start:
            own = slice(start, end)
            low, high = (float(one) for one in (sorted_values[start], sorted_values[end - 1]))
            found.append(Part(int(right[order[own]].sum()), end - start, low, high))
        start = end
    return found
