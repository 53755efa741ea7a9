"""Convolution weights as pictures."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.record import layer_of, layers_of
from fulgurite.probes.render import BACKGROUND, RGB, captioned, enlarged, font, grid, largest, signed


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
            f"{layer!r} is a {type(module).__name__}, wanted a Conv2d: {', '.join(convolutions(network)[:8])}"
        )
    return module.weight.detach().float()


def stimuli(network: nn.Module, layer: str) -> Float[Tensor, "out in h w"]:
    """Each filter divided by its length: of all patches of length 1, the one to which it responds most.

    A filter that is 0 stays so.
    """
    values = weights(network, layer)
    return values / strength(network, layer)[:, None, None, None].clamp(min=torch.finfo(torch.float32).tiny)


def filters(
    network: nn.Module, layer: str, *, max_filters: int = 64, side: int = 24, unit_length: bool = False
) -> RGB:
    """A convolution's filters as a picture: mid-grey is 0, white and black are the largest weight's size.

    Filters on one or three channels are shown whole, in a square of up to `max_filters`. Deeper ones are
    shown channel by channel: a row for each output channel, a column for each input channel, up to the
    square root of four times `max_filters` each way. `side` is the size of a tile in pixels. With
    `unit_length`, they are divided by their lengths: the `stimuli`.
    """
    values = _shown(network, layer, unit_length)
    top = largest(values)
    if values.shape[1] in (1, 3):
        return grid([enlarged(signed(filter, top=top), side=side) for filter in values[:max_filters]])
    along = int((4 * max_filters) ** 0.5)
    tiles = values[:along, :along].flatten(0, 1)[:, None]
    columns = min(along, values.shape[1])
    return grid([enlarged(signed(tile, top=top), side=side // 2) for tile in tiles], columns=columns)


def filters_side_by_side(
    networks: Mapping[str, tuple[nn.Module, str]],
    *,
    max_filters: int = 64,
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
    pictures = []
    for name, (network, layer) in networks.items():
        values = _shown(network, layer, unit_length)
        pixels = filters(network, layer, max_filters=max_filters, side=side, unit_length=unit_length)
        some = f", the first {max_filters}" if len(values) > max_filters else ""
        lines = (
            name,
            layer,
            f"{' x '.join(map(str, values.shape))}{some}",
            f"{'stimuli; ' * unit_length}grey 0, white {largest(values):.3g}, black -{largest(values):.3g}",
        )
        width = max(pixels.shape[2], 4 + max(int(font().getlength(line)) for line in lines))
        pictures.append(captioned(_widened(pixels, width), *lines))
    return grid(pictures, columns=len(pictures), gap=8)


def _widened(pixels: RGB, width: int) -> RGB:
    """The picture, with ground at its right."""
    paper = torch.tensor(BACKGROUND, dtype=torch.uint8)[:, None, None].repeat(1, pixels.shape[1], width)
    paper[:, :, : pixels.shape[2]] = pixels
    return paper


def _shown(network: nn.Module, layer: str, unit_length: bool) -> Float[Tensor, "out in h w"]:
    return stimuli(network, layer) if unit_length else weights(network, layer)


def strength(network: nn.Module, layer: str) -> Float[Tensor, "out"]:
    """The length of each filter of a convolution: near 0 where a filter has died out."""
    return torch.linalg.vector_norm(weights(network, layer).flatten(1), dim=1)
