"""Activation maps of the strongest channels of each layer at each epoch."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.callbacks.framework.captions import row_names, true_captions
from fulgurite.callbacks.framework.film_maps import FilmMaps, film_maps
from fulgurite.callbacks.framework.map_probe import MapProbe
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.layers import LayerProbe
from fulgurite.probes.activations.activation_maps import ActivationMaps, activation_maps, render_activations
from fulgurite.probes.attribution.map_sheets import MapRow, reduced
from fulgurite.probes.attribution.render_maps import Look

SIDE, ACROSS = 96, 2  # of a tile of the film, and the channels along it
WORDS = {
    "heat": "the 4 strongest channels of each layer at that epoch",
    "signed": "the 4 strongest channels of each layer at that epoch; orange above 0, blue below",
}


class Activations(MapProbe, LayerProbe):
    """For each layer a picture: images in rows, next to each the maps of its strongest channels.

    The strongest are those with the largest average of activations above 0; all maps of a picture have one
    scale, which is below it. The film shows of each image the four strongest channels of each layer at an
    epoch, by default on one scale for each layer.

    Args:
        layers: by path; the network's stages without it.
        most: channels for each image.
        images: how many validation images.
        **schedule: as for `MapProbe` and `ProbeCallback`.
    """

    logs_numbers = False

    def __init__(
        self, layers: Sequence[str] | None = None, *, most: int = 8, images: int | None = 4, **schedule
    ):
        super().__init__(layers=layers, images=images, **schedule)
        if most < 1:
            raise ValueError(f"most={most}; wanted at least 1 channel")
        self.most, self.film.side = most, SIDE

    def check(self, network: nn.Module, sample: Sample) -> None:
        """The layers output maps, tokens that lie on a grid, or rows of values."""
        activation_maps(network, sample[:1].images, self.subjects(network, sample), most=1)

    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The layers."""
        return self.find(network, sample)

    def observe(
        self, network: nn.Module, sample: Sample, subjects: Sequence[str]
    ) -> Mapping[str, ActivationMaps]:
        """The maps of each layer."""
        if not subjects:
            return {}
        found = activation_maps(network, sample.images, subjects, most=self.most)
        return {
            layer: ActivationMaps(own.channels.cpu(), own.maps.cpu(), own.means.cpu())
            for layer, own in found.items()
        }

    def compose(self, observations: Mapping[str, ActivationMaps], sample: Sample) -> Mapping[str, Picture]:
        """A picture of each layer."""
        images, names = sample.images.cpu(), self._names(sample)
        return {
            layer: Picture(render_activations(layer, images, maps, names, side=64))
            for layer, maps in observations.items()
        }

    def frames(self, observations: Mapping[str, ActivationMaps], composed: object) -> Mapping[str, FilmMaps]:
        """Of each image the strongest channels of all layers, as one map for each layer."""
        assert self.sample is not None  # it has looked
        rows = {}
        for place, (subject, image) in enumerate(zip(self.sample.each(), self.sample.images, strict=True)):
            maps = {layer or "logits": _tiled(own.maps[place]) for layer, own in observations.items()}
            rows[subject] = MapRow(image.cpu(), maps)
        looks: dict[str, Look] = {
            layer or "logits": "signed" if bool((own.maps < 0).any()) else "heat"
            for layer, own in observations.items()
        }
        return film_maps(rows, true_captions(self.sample), side=SIDE, looks=looks, words=WORDS)

    def _names(self, sample: Sample) -> list[str]:
        """The images as in other pictures, and what is true of them."""
        truths = true_captions(sample)
        return [f"{name}, {truths[own]}" if truths[own] else name for own, name in row_names(sample).items()]


def _tiled(maps: Float[Tensor, "k h w"]) -> Float[Tensor, "1 _ _"]:
    """The maps of the four strongest channels, fewer where there are fewer, as a square of squares."""
    side = SIDE // ACROSS
    shown = reduced(maps[: ACROSS**2], side)
    factor = side / max(shown.shape[1:])
    size = [max(1, round(factor * own)) for own in shown.shape[1:]]
    shown = F.interpolate(shown[None], size=size, mode="nearest-exact")[0]
    shown = F.pad(shown, (0, 1, 0, 1, 0, ACROSS**2 - len(shown)))  # lines of 0 between them
    rows = [torch.cat([*shown[first : first + ACROSS]], 1) for first in range(0, ACROSS**2, ACROSS)]
    return torch.cat(rows)[None, :-1, :-1]
