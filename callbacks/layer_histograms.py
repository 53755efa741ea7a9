"""Histograms of each layer's outputs, and of the gradients that reach them, at each epoch."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Histogram
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import LayerProbe
from fulgurite.probes.activations.layer_histograms import LayerValues, layer_values

MOST = 100_000  # numbers of a layer


class LayerHistograms(LayerProbe):
    """Histograms of each layer's outputs, `outputs/LAYER`, and of gradients, `gradients/LAYER`.

    The gradients are of the cross-entropy of each image with respect to the outputs: vanishing gradients mean
    that early layers do not learn, exploding ones that training is unstable.

    Args:
        layers: by path; the network's stages without it.
        images: how many validation images; None for all.
        **schedule: as for `ProbeCallback`.
    """

    logs_numbers = False
    needs = "logits"

    def __init__(self, layers: Sequence[str] | None = None, *, images: int | None = 64, **schedule):
        super().__init__(layers, images=images, **schedule)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, in chunks."""
        self.find(network, sample)
        return sample.chunks()

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, Mapping[str, LayerValues]]:
        """The numbers of each chunk, by layer."""
        most = max(1, MOST // len(sample.chunks()))
        observations = {}
        for name in subjects:
            chunk = sample.chunk(name)
            found = layer_values(network, chunk.images, chunk.labels, self.found, most=most)
            observations[name] = {
                layer: LayerValues(*(part.cpu() for part in values)) for layer, values in found.items()
            }
        return observations

    def compose(
        self, observations: Mapping[str, Mapping[str, LayerValues]], sample: Sample
    ) -> Mapping[str, Artifact]:
        """Two histograms for each layer."""
        return {
            f"{kind}/{layer}": Histogram(
                torch.cat([getattr(own[layer], kind) for own in observations.values()])
            )
            for layer in self.found
            for kind in ("outputs", "gradients")
        }
