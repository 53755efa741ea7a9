"""Activation maps of the strongest channels of each layer at each epoch."""

from collections.abc import Mapping, Sequence

from torch import nn

from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.callbacks.framework.captions import row_names, true_captions
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import LayerProbe
from fulgurite.probes.activations.activation_maps import activation_maps, render_activations


class Activations(LayerProbe):
    """For each layer a picture: images in rows, next to each the maps of its strongest channels.

    The strongest are those with the largest average of activations above 0; all maps of a picture have one
    scale, which is below it.

    Args:
        layers: by path; the network's stages without it.
        most: channels for each image.
        images: how many validation images.
        **schedule: as for `ProbeCallback`.
    """

    logs_numbers = False

    def __init__(
        self, layers: Sequence[str] | None = None, *, most: int = 8, images: int | None = 4, **schedule
    ):
        super().__init__(layers, images=images, **schedule)
        if most < 1:
            raise ValueError(f"most={most}; wanted at least 1 channel")
        self.most, self.film.side = most, 480

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers output maps, tokens that lie on a grid, or rows of values."""
        activation_maps(network, sample[:1].images, self.subjects(network, sample), most=1)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The layers."""
        return self.find(network, sample)

    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Picture]:
        """A picture of each layer."""
        if not subjects:
            return {}
        images = sample.images
        found = activation_maps(network, images, subjects, most=self.most)
        return {
            layer: Picture(render_activations(layer, images, maps, self._names(sample), side=64))
            for layer, maps in found.items()
        }

    def _names(self, sample: Sample) -> list[str]:
        """The images as in other pictures, and what is true of them."""
        truths = true_captions(sample)
        return [f"{name}, {truths[own]}" if truths[own] else name for own, name in row_names(sample).items()]
