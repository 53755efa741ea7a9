"""LayerProbe: base class of probes that read given layers, or the network's stages."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Artifact, Picture, Scalar
from fulgurite.callbacks.framework.distributed import is_main_process
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.record import layer_of
from fulgurite.probes.render import RGB, grid
from fulgurite.probes.representation.stages import image_features, stages
from fulgurite.probes.synthesis.watch import Watch


class LayerProbe(ProbeCallback):
    """A probe of layers; a subclass finds those that it reads in `found`, once `find` has been called."""

    needs = "layers"

    def __init__(self, layers: Sequence[str] | None = None, **schedule):
        super().__init__(**schedule)
        self.layers, self.found = checked_layers(layers), list[str]()

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers can be read."""
        self.subjects(network, sample)

    def find(self, network: nn.Module, sample: Sample) -> list[str]:
        """The given layers, or the network's stages; looked up once."""
        self.found = self.found or layers_or_stages(network, sample, self.layers)
        return self.found

    def watch(self, layer: str) -> Watch:
        """A progress bar for the work at a layer, on the main process."""
        return Watch(f"{self.name} {layer}" if is_main_process() else None)


class Strip(NamedTuple):
    """Of an image: its strip of tiles, and some numbers for each layer."""

    tiles: RGB
    numbers: Float[Tensor, "layers m"]


class LayerStrips(LayerProbe):
    """A strip for each image with a tile for each layer, and numbers of layers; a subclass writes `observe`.

    `numbers` are their names; what is logged are their means over the images, where these are finite.
    """

    numbers: Sequence[str] = ()

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The images, by their places in the sample."""
        self.find(network, sample)
        return sample.each()

    def compose(self, observations: Mapping[str, Strip], sample: Sample) -> Mapping[str, Artifact]:
        """All strips on one sheet, and the means over the images."""
        means = torch.stack([strip.numbers for strip in observations.values()]).mean(0)
        numbers = {
            f"{layer or 'logits'}/{name}": Scalar(value)
            for layer, row in zip(self.found, means, strict=True)
            for name, value in zip(self.numbers, row, strict=True)
            if value.isfinite()
        }
        return {"": Picture(grid([one.tiles for one in observations.values()], columns=1, gap=4)), **numbers}


def checked_layers(layers: Sequence[str] | None) -> Sequence[str] | None:
    """The layers as given.

    Raises:
        ValueError: they are not a list of paths.
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
