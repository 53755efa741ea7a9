"""Adversarial weight perturbation: a min-max loss at the worst weights near the network's own."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from fulgurite.models.losses import Growing
from fulgurite.models.min_max import MinMax


@dataclass(frozen=True)
class WeightPerturbed:
    """A min-max loss at weights that are moved, layer by layer, along the gradient that increases it.

    Adversarial weight perturbation: for the adversarial images of a batch, the weights of each layer are
    moved by `gamma` times their own length; the loss and its gradients are those at the moved weights, and
    the step is made from the network's own, which are never written to. Biases and norms are not moved. It
    flattens the loss around the weights, and robust accuracy falls less after its best epoch. Each process
    moves the weights by its own share of the batch. Costs a forward and a backward pass more. Wu et al. 2020,
    arxiv.org/abs/2004.05884.

    Args:
        loss: any min-max loss: `Adversarial`, `Trades`, `Mart`, `Fast`, `Free`.
        gamma: the share of the weights' length; the authors use .005 (TRADES) and .01.
    """

    loss: Any
    gamma: float = 0.005

    def __post_init__(self) -> None:
        if not isinstance(self.loss, MinMax):
            raise ValueError(
                f"{type(self.loss).__name__} is not a min-max loss, so no weights are perturbed for it; "
                "wanted such as Adversarial"
            )
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"gamma={self.gamma}; wanted a finite share of the weights' length above 0")

    @property
    def warmup(self) -> float:
        """The warm-up of the loss; 0 if it has none."""
        return getattr(self.loss, "warmup", 0.0)

    @property
    def replays(self) -> int:
        """Steps on each batch: those of the loss, or 1."""
        return getattr(self.loss, "replays", 1)

    @property
    def fall_back(self) -> Callable[[], "WeightPerturbed"] | None:
        """The loss to continue with after catastrophic overfitting, if there is one; also perturbed."""
        inner = getattr(self.loss, "fall_back", None)
        return None if inner is None else lambda: replace(self, loss=inner())

    def __call__(
        self, network: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """The loss at the perturbed weights."""
        moved = self.loss.moved(network, images, labels)
        weights = {
            name: weight
            for name, weight in network.named_parameters()
            if weight.requires_grad and weight.dim() > 1
        }
        if not weights:
            raise ValueError("no layer has weights that learn, so there is nothing to perturb")
        slopes = self._slopes(network, weights, images, moved, labels)
        perturbed = {
            name: weight + self.gamma * weight.detach().norm() * slope / slope.norm().clamp(min=1e-12)
            for (name, weight), slope in zip(weights.items(), slopes, strict=True)
        }
        return self.loss.of(
            lambda shown: functional_call(network, perturbed, (shown,)), images, moved, labels
        )

    def at(self, progress: float) -> "WeightPerturbed":
        """With the loss of this share of the training."""
        return replace(self, loss=self.loss.at(progress)) if isinstance(self.loss, Growing) else self

    def restart(self) -> None:
        """Start again, where the loss keeps something between batches."""
        if hasattr(self.loss, "restart"):
            self.loss.restart()

    def _slopes(
        self,
        network: nn.Module,
        weights: dict[str, nn.Parameter],
        images: Float[Tensor, "n c h w"],
        moved: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
    ) -> list[Tensor]:
        """The gradients of the loss by the weights; running statistics are not changed by this pass."""
        copies = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        state = {**copies, **buffers}
        value = self.loss.of(lambda shown: functional_call(network, state, (shown,)), images, moved, labels)
        found = torch.autograd.grad(value, list(copies.values()), materialize_grads=True)
        return [slope.nan_to_num(0, 0, 0) for slope in found]
