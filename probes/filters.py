"""Convolution weights as pictures."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.counted import counted
from fulgurite.probes.record import layer_of, layers_of
from fulgurite.probes.render import (
    RGB,
    diverging,
    enlarged,
    grid,
    largest,
    noted,
    scale_bar,
    signed,
    stacked,
    titled,
)
from fulgurite.probes.style import theme

NARROW = 240  # pixels, of the note below: that of a few filters is not wider than their scale
WHOLE = (1, 3)  # channels of filters that are shown whole, in colour


def convolutions(network: nn.Module) -> list[str]:
    """The paths of all 2-d convolutions, in the order in which the network lists them."""
    return [name for name, module in layers_of(network).items() if isinstance(module, nn.Conv2d)]


def weights(network: nn.Module, layer: str) -> Float[Tensor, "out in h w"]:
    """A convolution's weights, detached.

    Raises:
        ValueError: the layer is no 2-d convolution.
    """
    module = layer_of(network, layer)
    if not isinstance(module, nn.Conv2d):
        raise ValueError(
            f"{layer!r} is a {type(module).__name__}, wanted a Conv2d: "
            f"{', '.join(convolutions(network)[:8]) or 'the network has none'}"
        )
    return module.weight.detach().float()


def stimuli(network: nn.Module, layer: str) -> Float[Tensor, "out in h w"]:
    """Each filter divided by its length: of all patches of length 1, the one to which it responds most.

    A filter that is 0 stays so.
    """
    values = weights(network, layer)
    return values / strength(network, layer)[:, None, None, None].clamp(min=torch.finfo(torch.float32).tiny)


def filters(
    network: nn.Module,
    layer: str,
    *,
    max_filters: int | None = None,
    side: int = 24,
    unit_length: bool = False,
    top: float | None = None,
) -> RGB:
    """A convolution's filters as a picture, on one scale.

    Filters on three channels are shown whole, 0 being mid-grey in each colour; those on one channel from blue
    (negative) to orange. Deeper ones are shown channel by channel: a row for each output channel, a column
    for each input channel.

    Args:
        network: any.
        layer: the convolution's path.
        max_filters: how many are shown, at most: 64 without it, or 16 of those that are shown channel by
            channel, and as many input channels.
        side: of a filter, in pixels.
        unit_length: divide filters by their lengths: the `stimuli`.
        top: the weight at the end of the scale; the largest without it.
    """
    values = _shown(network, layer, unit_length)
    top = largest(values) if top is None else top
    along, gap = most_shown(values.shape[1], max_filters), max(1, side // 12)
    lines = None if values.shape[1] == 3 else theme().separator  # 0 is like paper, except in colour
    if values.shape[1] in WHOLE:
        shown = [enlarged(_coloured(filter, top), side=side) for filter in values[:along]]
        return grid(shown, gap=gap, between=lines)
    tiles = values[:along, :along].flatten(0, 1)[:, None]
    columns = min(along, values.shape[1])
    shown = [enlarged(_coloured(tile, top), side=side // 2) for tile in tiles]
    return grid(shown, columns=columns, gap=gap, between=lines)


def most_shown(channels: int, max_filters: int | None = None) -> int:
    """How many filters on so many channels are shown at most, and how many of these channels."""
    if max_filters is not None:
        return max_filters
    return 64 if channels in WHOLE else 16


def render_filters(
    network: nn.Module,
    layer: str,
    *,
    max_filters: int | None = None,
    side: int = 24,
    unit_length: bool = False,
    top: float | None = None,
) -> RGB:
    """The `filters` of a convolution with their scale, and a line that says what they are."""
    values = _shown(network, layer, unit_length)
    end = largest(values) if top is None else top
    pixels = filters(network, layer, max_filters=max_filters, side=side, unit_length=unit_length, top=top)
    count, channels, height, width = values.shape
    whole, along = channels in WHOLE, most_shown(channels, max_filters)
    words = f"{layer}: {counted(count, 'filter')} of {channels} x {height} x {width}"
    words += f", the first {along}" if count > along else ""
    if not whole:
        few = f", the first {along}" if channels > along else ""
        words += f"; rows: output channels, columns: input channels{few}"
    beyond = float((values.abs() > end * (1 + 1e-6)).float().mean())
    words += (
        f"; {'less than 0.1%' if beyond < 0.001 else f'{beyond:.1%}'} of the weights lie beyond the scale"
        if beyond
        else ""
    )
    unit = "weight of a filter of length 1" if unit_length else "weight"
    scale = scale_bar("grey" if channels == 3 else "signed", end, unit)
    return noted(stacked([pixels, scale], gap=4), words, least=NARROW)


def typical_end(network: nn.Module, layer: str) -> float:
    """Where a scale of a convolution's weights may end for a whole run: four times their root mean square.

    Fresh weights fill less than half of it, so that their growth is seen; of others, a few lie beyond.
    """
    values = weights(network, layer)
    return 4 * float(values[values.isfinite()].square().mean().sqrt())


def filters_side_by_side(
    networks: Mapping[str, tuple[nn.Module, str]],
    *,
    max_filters: int | None = None,
    side: int = 24,
    unit_length: bool = False,
) -> RGB:
    """The filters of a convolution of each network, side by side, each picture with its own scale below.

    Args:
        networks: by name, each with the path of the convolution.
        max_filters: as for `filters`.
        side: as for `filters`.
        unit_length: as for `filters`.

    Raises:
        ValueError: no networks, or a layer that is no 2-d convolution.
    """
    if not networks:
        raise ValueError("no networks; wanted at least one")
    pictures = [
        titled(
            render_filters(network, layer, max_filters=max_filters, side=side, unit_length=unit_length), name
        )
        for name, (network, layer) in networks.items()
    ]
    return grid(pictures, columns=len(pictures), gap=8)


def _coloured(values: Float[Tensor, "c h w"], top: float) -> RGB:
    return signed(values, top=top) if len(values) == 3 else diverging(values[0], top=top)


def _shown(network: nn.Module, layer: str, unit_length: bool) -> Float[Tensor, "out in h w"]:
    return stimuli(network, layer) if unit_length else weights(network, layer)


def strength(network: nn.Module, layer: str) -> Float[Tensor, "out"]:
    """The length of each filter of a convolution: near 0 for a dead filter."""
    return torch.linalg.vector_norm(weights(network, layer).flatten(1), dim=1)
