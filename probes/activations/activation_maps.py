"""Activation maps of a layer: the strongest channels for each image, as a grid with one common scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.attribution.render_maps import sized
from fulgurite.probes.batches import Batches, batch_size
from fulgurite.probes.channels import feature_maps
from fulgurite.probes.counted import counted
from fulgurite.probes.feature_extractor import feature_extractor
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.record import LayerOutputs, layer_of
from fulgurite.probes.render import (
    RGB,
    captioned,
    diverging,
    heat,
    largest,
    noted,
    picture,
    scale_bar,
    sheet,
    short_number,
    stacked,
)


@dataclass(frozen=True)
class ActivationMaps:
    """The maps of the strongest channels of a layer for each image, strongest first.

    `channels` are their numbers, `means` their activations above 0, averaged over positions, by which they
    are ordered. For a layer without positions, a map is one value.
    """

    channels: Int[Tensor, "n k"]
    maps: Float[Tensor, "n k h w"]
    means: Float[Tensor, "n k"]


def activation_maps(
    network: nn.Module, images: Float[Tensor, "n c h w"], layers: Sequence[str], *, most: int = 8
) -> dict[str, ActivationMaps]:
    """Maps of the strongest channels of each layer for each image, from one forward pass for all layers.

    Channels are ranked by the average over positions of their activations above 0. Maps are the layer's
    signed outputs; tokens lie on the grid of patches that the network defines, and those before the patches,
    such as a class token, are left out. Computed in eval mode, in at least float32.

    Args:
        network: maps images in [0, 1] to logits.
        images: what the maps are of.
        layers: by path.
        most: channels for each image; all of a layer that has no more.

    Returns:
        by layer, on the network's device and without a graph.

    Raises:
        ValueError: no such layer, no images, layers or channels, activations that are not finite, or tokens
            that lie on no grid.
    """
    if isinstance(layers, str) or not layers:
        raise ValueError(f"layers={layers!r}; wanted a list of their paths")
    if most < 1 or not len(images):
        raise ValueError(
            f"most={most} channels of {counted(len(images), 'image')}; wanted at least 1 of each"
        )
    for layer in layers:
        layer_of(network, layer)
    with frozen_eval(network) as net, feature_extractor(net, layers) as extract, torch.no_grad():
        device = device_of(net)

        def run(rows: slice) -> list[ActivationMaps]:
            outputs = extract(images[rows].to(device))
            return [_strongest(outputs, layer, most) for layer in layers]

        parts = [found for _, found in Batches(batch_size(images, device)).over(len(images), run)]
    return {layer: _joined(own) for layer, own in zip(layers, zip(*parts, strict=True), strict=True)}


def render_activations(
    layer: str,
    images: Float[Tensor, "n c h w"],
    found: ActivationMaps,
    names: Sequence[str] | None = None,
    *,
    side: int = 96,
) -> RGB:
    """The maps of a layer as a picture: a row for each image, the strongest channels from left to right.

    All maps have one scale, which is below them: from 0 to the largest activation shown, or, where any is
    negative, from minus that to it. Below each are the channel's number and its average above 0.

    Args:
        layer: its path, for the caption.
        images: what the maps are of, in [0, 1].
        found: the maps.
        names: of the images; their numbers without it.
        side: of a tile, in pixels.

    Raises:
        ValueError: there is not one name for each image.
    """
    names = [str(place) for place in range(len(images))] if names is None else names
    if len(names) != len(images) or len(found.maps) != len(images):
        raise ValueError(
            f"{counted(len(names), 'name')} and maps of {len(found.maps)} for {counted(len(images), 'image')}"
        )
    top, both = largest(found.maps), bool((found.maps < 0).any())
    rows = dict[str, list[RGB]]()
    for place, name in enumerate(names):
        tiles = [
            captioned(
                sized(diverging(values, top=top) if both else heat(values, top=top), side),
                f"{number}: {short_number(mean)}",
            )
            for number, mean, values in zip(
                found.channels[place].tolist(), found.means[place].tolist(), found.maps[place], strict=True
            )
        ]
        rows[name] = [sized(picture(images[place]), side), *tiles]
    height, width = found.maps.shape[2:]
    columns = ["image", *(str(place + 1) for place in range(found.maps.shape[1]))]
    scale = scale_bar("signed" if both else "magnitude", top, f"activation of {layer or 'logits'}")
    legend = f"{layer or 'logits'}, {height} x {width}; below the maps: channel, and its mean above 0"
    return noted(stacked([sheet(rows, columns=columns), scale], gap=2), legend)


def _strongest(outputs: LayerOutputs, layer: str, most: int) -> ActivationMaps:
    maps = _maps(outputs, layer)
    if not bool(maps.isfinite().all()):
        raise ValueError(f"activations of {layer or 'the output'!r} that are not finite")
    # stable: channels that are equally strong, as dead ones are, come in their own order on every device
    means, channels = maps.clamp(min=0).mean((2, 3)).sort(dim=1, descending=True, stable=True)
    means, channels = means[:, :most], channels[:, :most]
    return ActivationMaps(channels, maps.gather(1, _expanded(channels, maps)), means)


def _maps(outputs: LayerOutputs, layer: str) -> Float[Tensor, "n c h w"]:
    found = feature_maps(outputs, layer)
    if found.dim() not in (2, 4):
        raise ValueError(f"layer {layer!r} outputs {tuple(found.shape)}; wanted maps, tokens or rows")
    return found if found.dim() == 4 else found[:, :, None, None]


def _expanded(channels: Int[Tensor, "n k"], maps: Float[Tensor, "n c h w"]) -> Int[Tensor, "n k h w"]:
    return channels[:, :, None, None].expand(-1, -1, *maps.shape[2:])


def _joined(parts: Sequence[ActivationMaps]) -> ActivationMaps:
    channels, maps, means = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("channels", "maps", "means")
    )
    return ActivationMaps(channels, maps, means)
