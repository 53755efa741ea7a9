"""Cross-entropy weighted by class, for imbalanced data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Weighted:
    """Cross-entropy of the clean images, times the weight of each image's class.

    The mean is over the images, not over their weights: an image's gradient does not depend on its batch, nor
    on how processes share batches.

    Args:
        weights: one for each class, see `ImageData.class_weights`.
        smoothing: the share of each label that is spread evenly over all classes.
    """

    weights: Sequence[float]
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not self.weights or any(not 0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"class weights {[*self.weights]}; wanted a positive number for each class")

    def __call__(
        self,
        network: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"] | Float[Tensor, "n k"],
    ) -> Float[Tensor, ""]:
        """The mean of the weighted cross-entropies; of shares of classes, weights are averaged by them."""
        logits = network(images)
        each = F.cross_entropy(logits, labels, label_smoothing=self.smoothing, reduction="none")
        weights = logits.new_tensor(self.weights)
        return (
            each * (labels.to(weights) @ weights if labels.is_floating_point() else weights[labels])
        ).mean()
