"""Error slices: groups of similar images that are misclassified far more often than others of their class."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.stats import binom
from sklearn.cluster import KMeans
from torch import Tensor


class ErrorSlice(NamedTuple):
    """Similar images of one class.

    Args:
        label: their class.
        members: their numbers, the most typical first.
        errors: how many are misclassified.
        class_rate: the share of misclassified images in all of the class.
        answer: the class they are classified as most often.
        chance: the probability of as many errors or more in as many images of the class drawn at random.
    """

    label: int
    members: Int[Tensor, "m"]
    errors: int
    class_rate: float
    answer: int
    chance: float

    @property
    def rate(self) -> float:
        """The share of misclassified images."""
        return self.errors / len(self.members)


def error_slices(
    codes: Float[Tensor, "n d"],
    labels: Int[Tensor, "n"],
    logits: Float[Tensor, "n k"],
    *,
    smallest: int = 5,
    largest_chance: float = 0.01,
    seed: int = 0,
) -> Sequence[ErrorSlice]:
    """Clusters of each class's features whose error rate is far above the class's, most errors first.

    Each class is cut into two to ten clusters, by k-means of its features; labels and predictions are not
    used for it, so that `chance` is valid. After the idea of Eyuboglu et al. 2022, arxiv.org/abs/2203.14960.

    Args:
        codes: penultimate features.
        labels: the true classes.
        logits: the network's predictions.
        smallest: images in a slice, at least.
        largest_chance: a slice's, at most; divided by the clusters of the class.
        seed: of k-means.
    """
    answers, found = logits.argmax(1), list[ErrorSlice]()
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        wrong = answers[rows] != label
        clusters = min(10, len(rows) // (2 * smallest))
        if clusters < 2 or not wrong.any():
            continue
        own = codes[rows].double()
        fitted = KMeans(clusters, n_init="auto", random_state=seed).fit(own.numpy())
        which, centres = torch.from_numpy(fitted.labels_).long(), torch.from_numpy(fitted.cluster_centers_)
        class_rate = float(wrong.double().mean())
        for cluster in range(clusters):
            inside = which == cluster
            errors, size = int(wrong[inside].sum()), int(inside.sum())
            chance = float(binom.sf(errors - 1, size, class_rate))
            if size < smallest or chance > largest_chance / clusters:
                continue
            order = (own[inside] - centres[cluster]).norm(dim=1).argsort()
            taken = answers[rows[inside]][wrong[inside]].mode().values
            found.append(ErrorSlice(label, rows[inside][order], errors, class_rate, int(taken), chance))
    return sorted(found, key=lambda own: own.errors - own.class_rate * len(own.members), reverse=True)
