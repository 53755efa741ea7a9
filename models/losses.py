"""What a batch teaches: a loss is an object that takes the network, the images and the labels."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@runtime_checkable
class Loss(Protocol):
    """What a batch teaches a network.

    It gets the network, not its logits, so that a loss may choose what the network is shown.
    """

    def __call__(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """The mean loss of the batch, graph attached."""
        ...


@dataclass(frozen=True)
class Plain:
    """Cross-entropy of the images as they are.

    Args:
        smoothing: the share of each label that is spread evenly over all classes.
    """

    smoothing: float = 0.0

    def __call__(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """The mean cross-entropy."""
        return F.cross_entropy(network(images), labels, label_smoothing=self.smoothing)
