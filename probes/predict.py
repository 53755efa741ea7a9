"""Predictions of a network, batch by batch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import pooled
from fulgurite.probes.record import record


def predict(network: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """The logits; a map of logits is averaged over its positions."""
    with frozen_eval(network) as net, torch.no_grad(), record(net, [""]) as outputs:
        net(images)
    return pooled(outputs[""].float())
