"""Convolution filters as pictures, and their norms, at each epoch."""

from collections.abc import Mapping, Sequence

from torch import nn

from fulgurite.callbacks.framework.artifacts import Artifact, Histogram, Picture
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.filters import convolutions, filters, strength, weights


class Filters(ProbeCallback):
    """Filters of the first convolution as a picture, of deeper ones channel by channel; grey is 0.

    Args:
        layers: the convolutions by path, or how many from the first on.
        max_filters: filters shown of each.
        **schedule: as for `ProbeCallback`.
    """

    needs = "weights"

    def __init__(self, layers: Sequence[str] | int = 3, *, max_filters: int = 64, **schedule):
        super().__init__(**{"images": 1, **schedule})
        self.layers, self.max_filters = layers, max_filters
        self.film.side = 210

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers are convolutions."""
        for layer in self.layers if not isinstance(self.layers, int) else ():
            weights(network, layer)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The convolutions."""
        return convolutions(network)[: self.layers] if isinstance(self.layers, int) else self.layers

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Artifact]:
        """A picture of each convolution, and the lengths of its filters."""
        pictures = {
            layer: Picture(filters(network, layer, max_filters=self.max_filters)) for layer in subjects
        }
        return pictures | {
            f"{layer}/strength": Histogram(strength(network, layer).cpu()) for layer in subjects
        }
