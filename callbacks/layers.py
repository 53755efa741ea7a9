"""Layers that a probe reads: those that were asked for, or the network's stages."""

from collections.abc import Sequence

from torch import nn

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.record import layer_of
from fulgurite.probes.representation.stages import image_features, stages


def checked_layers(layers: Sequence[str] | None) -> Sequence[str] | None:
    """The layers, as they were asked for.

    Raises:
        ValueError: they are no list of paths.
    """
    if layers is not None and (isinstance(layers, str) or not layers):
        raise ValueError(f"layers={layers!r}; wanted a list of their paths, or None for the stages")
    return layers


def layers_or_stages(network: nn.Module, sample: Sample, layers: Sequence[str] | None) -> list[str]:
    """The layers, or the stages of the network where none were asked for.

    Raises:
        ValueError: there is no such layer, or it cannot be read.
    """
    for layer in layers or ():
        layer_of(network, layer)
    found = stages(network, sample[:1].images) if layers is None else list(layers)
    image_features(network, sample[:1].images, found)  # raises where they cannot be read
    return found
