"""Outputs of layers, and the gradients that reach them, as numbers for histograms."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import pooled
from fulgurite.probes.record import record


class LayerValues(NamedTuple):
    """A layer's output, and the gradient of the loss with respect to it, both flattened."""

    outputs: Float[Tensor, "values"]
    gradients: Float[Tensor, "values"]


def layer_values(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, "n"] | None,
    layers: Sequence[str],
    *,
    most: int = 100_000,
) -> dict[str, LayerValues]:
    """Outputs of layers for some images, and the gradients of the cross-entropy with respect to them.

    The loss is the sum over the images, so that an image's gradients do not depend on how many there are. A
    layer that the loss does not depend on has gradients of 0.

    Args:
        network: maps images in [0, 1] to logits.
        images: all at once.
        labels: the classes; without them, those that the network predicts.
        layers: by path.
        most: how many numbers of each layer, spread evenly.

    Raises:
        ValueError: no such layer, one that outputs something else than a tensor, or `most` below 1.
    """
    if most < 1:
        raise ValueError(f"most={most}; wanted at least 1 number of each layer")
    with frozen_eval(network) as net, torch.enable_grad(), record(net, list(layers)) as outputs:
        logits = pooled(net(images.detach().clone().requires_grad_()))
        targets = logits.argmax(1) if labels is None else labels.to(logits.device, copy=True)  # of any mode
        loss = F.cross_entropy(logits, targets, reduction="sum")
        values = [outputs[layer] for layer in layers]
        gradients = torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
    return {
        layer: LayerValues(_some(value, most), _some(gradient, most))
        for layer, value, gradient in zip(layers, values, gradients, strict=True)
    }


def _some(values: Tensor, most: int) -> Float[Tensor, "values"]:
    values = values.detach().flatten()
    return values[:: -(-len(values) // most)].float()
