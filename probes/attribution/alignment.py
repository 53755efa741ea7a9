"""Alignment of input gradients with images (Etmann et al. 2019)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.channels import at_least_float32
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import class_score, pooled
from fulgurite.probes.record import record


class Alignment(NamedTuple):
    """The alignment of each image with an input gradient, and that gradient.

    Args:
        length: of the image's projection onto the gradient, |<x, g>| / |g|; 0 without a gradient.
        cosine: the same relative to the image's own length, in [0, 1].
        gradient: g, of the predicted class's score less that of the runner-up.
        answers: the predicted class.
    """

    length: Float[Tensor, "n"]
    cosine: Float[Tensor, "n"]
    gradient: Float[Tensor, "n c h w"]
    answers: Int[Tensor, "n"]


def alignment(network: nn.Module, images: Float[Tensor, "n c h w"], *, layer: str = "") -> Alignment:
    """The alignment of each image with the gradient of its class's lead over the runner-up.

    For a network that is linear and has no bias, the length is the Euclidean distance to the boundary between
    the two classes. Etmann et al. 2019, arxiv.org/abs/1905.04172.

    Args:
        network: maps images to logits, for at least two classes.
        images: in [0, 1], black being 0.
        layer: where the scores are read; before the last ReLU, if the logits pass through one.

    Raises:
        ValueError: there is only one class.
    """
    with frozen_eval(network) as net:
        with torch.no_grad(), record(net, sorted({"", layer})) as outputs:
            net(images)
        first, scores = pooled(outputs[""]).argmax(1), pooled(at_least_float32(outputs[layer]))
        if scores.shape[1] < 2:
            raise ValueError("alignment is of the lead of one class over another; the network has only one")
        second = scores.scatter(1, first[:, None], -torch.inf).argmax(1)
        grad = gradient(net, images, class_score(first, layer=layer) - class_score(second, layer=layer))
    tiny = torch.finfo(grad.dtype).tiny
    pixels, along = images.to(grad).flatten(1), grad.flatten(1)
    # by its largest part first: the square of a small gradient is 0 in float32
    along = along / along.abs().amax(1, keepdim=True).clamp(min=tiny)
    length = (pixels * along).sum(1).abs() / along.norm(dim=1).clamp(min=tiny)
    return Alignment(length, length / pixels.norm(dim=1).clamp(min=tiny), grad, first)
