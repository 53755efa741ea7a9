"""What a network says of images."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.borrow import borrowed


def predict(network: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """The logits; a map of logits is averaged over its positions."""
    with borrowed(network) as net, torch.no_grad():
        logits = net(images).float()
    return logits.flatten(2).mean(2) if logits.dim() > 2 else logits
