"""Convolution weights as pictures."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.record import layer_of, layers_of
from fulgurite.probes.render import RGB, enlarged, grid, largest, signed


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


def filters(network: nn.Module, layer: str, *, max_filters: int = 64, side: int = 24) -> RGB:
    """A convolution's filters as a picture: mid-grey is 0, white and black are the largest weight's size.

    Filters on one or three channels are shown whole, in a square of up to `max_filters`. Deeper ones are
    shown channel by channel: a row for each output channel, a column for each input channel, up to the
    square root of four times `max_filters` each way. `side` is the size of a tile in pixels.
    """
    values = weights(network, layer)
    top = largest(values)
    if values.shape[1] in (1, 3):
        return grid([enlarged(signed(filter, top=top), side=side) for filter in values[:max_filters]])
    along = int((4 * max_filters) ** 0.5)
    tiles = values[:along, :along].flatten(0, 1)[:, None]
    columns = min(along, values.shape[1])
    return grid([enlarged(signed(tile, top=top), side=side // 2) for tile in tiles], columns=columns)


def strength(network: nn.Module, layer: str) -> Float[Tensor, "out"]:
    """The length of each filter of a convolution: near 0 where a filter has died out."""
    return torch.linalg.vector_norm(weights(network, layer).flatten(1), dim=1)
