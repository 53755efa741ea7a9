"""Feature vectors at the input of the classifier layer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import pooled
from fulgurite.probes.record import layer_of, record
from fulgurite.probes.stages import classifier_layer
from fulgurite.probes.trace import trace


def codes(
    network: nn.Module, images: Float[Tensor, "n c h w"], classifier: str | None = None
) -> Float[Tensor, "n d"]:
    """The classifier's input, maps averaged over their positions.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        classifier: the layer whose input is the code; the last linear layer or convolution without it.
    """
    classifier = classifier_layer(trace(network, images[:1])) if classifier is None else classifier
    with frozen_eval(network) as net, torch.no_grad(), record(net, [], inputs=[classifier]) as inputs:
        net(images)
        # a linear layer reads the last dimension, whatever is before it: positions, tokens
        is_linear = isinstance(layer_of(net, classifier), nn.Linear)
    code = inputs[classifier].float()
    return pooled(code.movedim(-1, 1) if is_linear else code)
