"""The layer where class scores are read: it has one for each class."""

import torch
from torch import nn

from fulgurite.probes.counted import counted
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.frozen_eval import device_of, dtype_of
from fulgurite.probes.objectives import pooled


def check_score_layer(network: nn.Module, layer: str, shape: tuple[int, int, int]) -> None:
    """Refuse a layer that has more or fewer channels than the network's output; one blank image is shown.

    Args:
        network: maps images in [0, 1] to logits.
        layer: by module path; `""` is the output, for which nothing is run.
        shape: of an image that the network takes: channels, height and width.

    Raises:
        ValueError: there is no such layer, or it has not one output for each class.
    """
    if not layer:
        return
    image = torch.zeros(1, *shape, device=device_of(network), dtype=dtype_of(network))
    found, wanted = (pooled(out).shape[1] for out in outputs(network, image, [layer, ""]).values())
    if found != wanted:
        raise ValueError(
            f"{layer} has {counted(found, 'output')}, the network {counted(wanted, 'class')}; wanted a layer "
            "with a score for each of them"
        )
