"""The images of a data set, and the positions in them, at which units of layers respond most."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.channels import feature_maps
from fulgurite.probes.feature_extractor import feature_extractor
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.indexed_images import Data
from fulgurite.probes.objectives import Objective
from fulgurite.probes.record import LayerOutputs, layer_of
from fulgurite.probes.stream import stream
from fulgurite.probes.tokens import token_grid
from fulgurite.probes.top_k import TopK


@dataclass(frozen=True)
class TopResponses:
    """The images in which the units of a layer respond most, and where.

    Args:
        layer: its path.
        channels: the numbers of those units that are channels.
        directions: how many more units are random directions.
        top: values, ids and positions: a row for each channel, then one for each direction.
        maps: height and width of the layer's maps, where they lie over the image as a convolution's do; None
            for tokens, each of which depends on the whole image.
    """

    layer: str
    channels: tuple[int, ...]
    directions: int
    top: TopK
    maps: tuple[int, int] | None

    def of(self, channels: Sequence[int]) -> "TopResponses":
        """Those of some of the channels, and of all directions.

        Raises:
            ValueError: a channel that is not among them.
        """
        if wrong := [number for number in channels if number not in self.channels]:
            raise ValueError(
                f"unit {wrong[0]} of layer {self.layer!r}; wanted channels from {self.channels[0]} to "
                f"{self.channels[-1]}"
            )
        rows = [self.channels.index(number) for number in channels]
        rows += range(len(self.channels), len(self.channels) + self.directions)
        top = TopK(self.top.k)
        top.load_state_dict({name: value[rows] for name, value in self.top.state_dict().items()})
        return replace(self, channels=tuple(channels), top=top)


def evenly(channels: Sequence[int], most: int) -> list[int]:
    """At most this many of the channels, spread evenly over them."""
    count = min(most, len(channels))
    return [channels[place * len(channels) // count] for place in range(count)]


def with_maps(network: nn.Module, images: Float[Tensor, "n c h w"], layers: Sequence[str]) -> list[str]:
    """Those of the layers that output maps, or tokens that lie on a grid that the network states."""
    with frozen_eval(network) as net, feature_extractor(net, layers) as extract, torch.no_grad():
        shapes = {layer: out.shape for layer, out in extract(images[:1].to(device_of(net))).items()}
    return [
        layer for layer in layers if len(shapes[layer]) == 4 or token_grid(network, shapes[layer]) is not None
    ]


def top_responses(
    network: nn.Module,
    data: Data,
    layers: Sequence[str],
    *,
    units: Sequence[int] | None = None,
    directions: int = 0,
    k: int = 9,
    seed: int = 0,
    ids: Iterable[int] | None = None,
    batch_size: int | None = None,
    progress: str | None = None,
) -> dict[str, TopResponses]:
    """The images and positions at which units respond most, for those of the images that `ids` names.

    Processes and parts of a data set each give their ids, and merge each layer's `top`. Arguments and errors
    are those of `strongest_patches`; that there are too few images is an error of `cut_patches`.
    """
    if isinstance(layers, str) or not layers:
        raise ValueError(f"layers={layers!r}; wanted a list of their paths")
    if k < 1 or directions < 0 or (units is not None and not len(units) and not directions):
        raise ValueError(
            f"{k} patches of units {units} and {directions} directions; wanted at least 1 of each"
        )
    for layer in layers:
        layer_of(network, layer)
    maxima = {layer: _Maxima(layer, units, directions, seed) for layer in layers}
    objectives = [
        Objective(frozenset({layer}), own, name=f"maxima of {layer}", vector=True)
        for layer, own in maxima.items()
    ]
    tops = {layer: TopK(k) for layer in maxima}
    batches = stream(network, data, objectives, ids=ids, batch_size=batch_size, progress=progress)
    for batch in batches:
        assert isinstance(batch.values, Tensor)
        every = batch.values.split([3 * own.units for own in maxima.values()])
        for (layer, own), packed in zip(maxima.items(), every, strict=True):
            values, *places = packed.T.unflatten(1, (3, own.units)).unbind(1)
            try:
                tops[layer].update(batch.ids, values, torch.stack(places, 2).long())
            except ValueError as error:
                raise ValueError(f"layer {layer!r}: {error}") from None
    return {
        layer: TopResponses(layer, own.channels, directions, tops[layer], own.maps)
        for layer, own in maxima.items()
    }


class _Maxima:
    """Of each unit, the largest response in an image, its row and its column, side by side."""

    def __init__(self, layer: str, units: Sequence[int] | None, directions: int, seed: int):
        self.layer, self.asked, self.directions, self.seed = layer, units, directions, seed
        self.channels: tuple[int, ...] = ()
        self.maps: tuple[int, int] | None = None

    @property
    def units(self) -> int:
        return len(self.channels) + self.directions

    def __call__(self, outputs: Mapping[str, Tensor]) -> Float[Tensor, "n k"]:
        maps = self._maps(outputs)
        count = maps.shape[1]
        self.channels = tuple(range(count) if self.asked is None else self.asked)
        if wrong := [number for number in self.channels if not 0 <= number < count]:
            raise ValueError(
                f"unit {wrong[0]} of layer {self.layer!r}; wanted a channel from 0 to {count - 1}"
            )
        parts = [maps if self.asked is None else maps[:, list(self.channels)]]
        if self.directions:
            parts.append(
                torch.einsum(
                    "dc,nchw->ndhw", random_directions(self.directions, count, self.seed).to(maps), maps
                )
            )
        largest = [part.flatten(2).max(2) for part in parts if part.shape[1]]
        values = torch.cat([own.values for own in largest], 1)
        places = torch.cat([own.indices for own in largest], 1)
        # positions as floating point numbers are exact up to maps of 4096 x 4096
        rows, columns = places // maps.shape[3], places % maps.shape[3]
        return torch.cat([values, rows.to(values), columns.to(values)], 1)

    def _maps(self, outputs: Mapping[str, Tensor]) -> Float[Tensor, "n c h w"]:
        maps = feature_maps(outputs, self.layer)
        if maps.dim() != 4:
            kind = (
                type(outputs.modules[self.layer]).__name__ if isinstance(outputs, LayerOutputs) else "layer"
            )
            raise ValueError(
                f"layer {self.layer!r} ({kind}) has no spatial extent: it outputs {tuple(maps.shape[1:])} "
                "for an image; wanted a layer with maps, such as a convolution"
            )
        self.maps = None if outputs[self.layer].dim() == 3 else (maps.shape[2], maps.shape[3])
        return maps


def random_directions(count: int, channels: int, seed: int) -> Float[Tensor, "d c"]:
    """Vectors of length 1, drawn evenly from the sphere; the same for each seed."""
    drawn = torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=1)
