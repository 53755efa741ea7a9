"""Where an image would change the answer most: the gradient of an objective."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.borrow import borrowed
from fulgurite.probes.objectives import Objective
from fulgurite.probes.record import record


def gradient(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objective
) -> Float[Tensor, "n c h w"]:
    """The derivative of the objective by each pixel, signed: how fast the score grows with the pixel.

    An image's gradient does not depend on the others of its batch.
    """
    return gradients(network, images, [objective])[0]


def gradients(
    network: nn.Module, images: Float[Tensor, "n c h w"], objectives: Sequence[Objective]
) -> list[Float[Tensor, "n c h w"]]:
    """The gradient of each objective, from one forward pass."""
    with borrowed(network) as net:
        pixels = images.detach().clone().requires_grad_()
        with record(net, sorted(frozenset().union(*(objective.layers for objective in objectives)))) as seen:
            net(pixels)
        # sum, not mean: each image's gradient must not depend on its batch
        scores = [objective.value(seen).sum() for objective in objectives]
        last = len(scores) - 1
        return [torch.autograd.grad(s, pixels, retain_graph=i < last)[0] for i, s in enumerate(scores)]


def saliency(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objective
) -> Float[Tensor, "n 1 h w"]:
    """How much each pixel matters: the largest absolute derivative among its channels, at least 0.

    Meant for a class score before the softmax. Simonyan et al. 2014, arxiv.org/abs/1312.6034.
    """
    return strongest(gradient(network, images, objective))


def strongest(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """The largest absolute value among the channels."""
    return maps.abs().amax(1, keepdim=True)
