"""Suspected label errors by confident learning, and the worst mistakes of a network."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulgurite.probes.representation.neighbours import nearest_neighbours


class Suspects(NamedTuple):
    """Images by how likely their labels are wrong, the most likely first.

    Args:
        order: all images; those that are suspected come before all others.
        suspected: which images are confidently of another class than their label.
        classes: the class that each image more likely is; for those that are not suspected, the most
            probable.
    """

    order: Int[Tensor, "n"]
    suspected: Bool[Tensor, "n"]
    classes: Int[Tensor, "n"]


def suspected_label_errors(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Suspects:
    """Which labels are probably wrong (confident learning), from predictions for images not trained on.

    An image is confidently of a class if its probability is at least the mean probability of that class among
    the images so labelled; it is suspected if the most probable such class is not its label. Suspects, and
    then all others, are ordered by the margin of their label's probability. Northcutt, Jiang & Chuang 2021,
    arxiv.org/abs/1911.00068.

    Args:
        probabilities: of a network that was not trained on these images; of training images those by their
            neighbours' labels, see `neighbour_probabilities`.
        labels: as they are given.

    Raises:
        ValueError: probabilities that are not finite.
    """
    if wrong := int((~probabilities.isfinite()).any(1).sum()):
        raise ValueError(f"probabilities of {wrong} of {len(labels)} images that are not finite")
    own, rows = probabilities.double(), torch.arange(len(labels), device=labels.device)
    given = own[rows, labels]
    sums = own.new_zeros(own.shape[1]).index_add(0, labels, given)
    counts = torch.bincount(labels, minlength=own.shape[1])
    least = torch.where(counts > 0, sums / counts, torch.inf)  # no labels: no confident image
    confident = own.masked_fill(own < least, -1.0)
    best = confident.argmax(1)
    suspected = (confident[rows, best] >= 0) & (best != labels)
    classes = torch.where(suspected, best, own.argmax(1))
    others = own.masked_fill(F.one_hot(labels, own.shape[1]).bool(), -torch.inf).amax(1)
    order = (given - others - 3 * suspected.double()).argsort(stable=True)
    return Suspects(order, suspected, classes)


def neighbour_probabilities(
    codes: Float[Tensor, "n d"], labels: Int[Tensor, "n"], classes: int, *, k: int = 20
) -> Float[Tensor, "n classes"]:
    """The shares of classes among each image's nearest neighbours by codes, itself left out.

    A network has memorised the wrong labels of its training images; their neighbours' labels reveal them.

    Raises:
        ValueError: as `nearest_neighbours` does.
    """
    found = nearest_neighbours(codes, k=min(k, len(codes) - 1)).places
    return F.one_hot(labels.to(found.device)[found], classes).double().mean(1)


def worst_mistakes(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Int[Tensor, "m"]:
    """The images that are misclassified, the one whose label is least probable first."""
    order = least_probable(probabilities, labels)
    return order[(probabilities.argmax(1) != labels)[order]]


def least_probable(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """All images, the one whose label is least probable first."""
    return probabilities.double().gather(1, labels[:, None])[:, 0].argsort(stable=True)
