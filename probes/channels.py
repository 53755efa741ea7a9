"""Where the channels of a layer's output are: first, or last as in transformers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fulgurite.probes.record import LayerOutputs
from fulgurite.probes.tokens import token_grid


def features(outputs: Mapping[str, Tensor], layer: str) -> Tensor:
    """The output of a layer, channels first, in at least float32, so that sums are accurate.

    Where `outputs` does not know the layer itself, maps of four dimensions have their channels first.
    """
    out = at_least_float32(outputs[layer])
    if out.dim() == 4 and not (isinstance(outputs, LayerOutputs) and layer in outputs.modules):
        return out
    return channels_first(out, outputs.modules[layer] if isinstance(outputs, LayerOutputs) else nn.Identity())


def feature_maps(outputs: Mapping[str, Tensor], layer: str) -> Tensor:
    """The output of a layer as maps, [n, channels, height, width], or a row of values for each image.

    Raises:
        ValueError: it is tokens that lie on no grid that the network states.
    """
    out = outputs[layer]
    if out.dim() != 3:
        return features(outputs, layer)
    if (
        grid := token_grid(outputs.network, out.shape) if isinstance(outputs, LayerOutputs) else None
    ) is None:
        raise ValueError(
            f"layer {layer!r} outputs {tuple(out.shape)}: tokens that lie on no grid that the network states"
        )
    return grid.maps(at_least_float32(out))


def at_least_float32(out: Tensor) -> Tensor:
    """The tensor in at least float32, so that sums over half-precision values are accurate."""
    return out if out.dtype == torch.float64 else out.float()


def channels_first(out: Tensor, layer: nn.Module) -> Tensor:
    """A layer's output with its channels in dimension 1: [n, channels, ...].

    Outputs of three dimensions are tokens, [n, tokens, channels]. Maps whose layer does not say have their
    channels first: see `channels_last`.

    Raises:
        ValueError: as `channels_last` does.
    """
    if out.dim() == 3 or (out.dim() == 4 and channels_last(out, layer)):
        return out.movedim(-1, 1)
    return out


def channels_last(out: Tensor, layer: nn.Module) -> bool | None:
    """Whether maps have their channels last, as in Swin transformers; None where the layer does not say.

    Its parts show it: by the numbers of channels that linear layers and LayerNorms output last, and
    convolutions and BatchNorms first. The layers that follow show it, too: attribution, which has traced
    them, checks those first.

    Raises:
        ValueError: by its parts both may be.
    """
    parts = list(layer.modules())
    last = {part.out_features for part in parts if isinstance(part, nn.Linear)}
    last |= {part.normalized_shape[-1] for part in parts if isinstance(part, nn.LayerNorm)}
    first = {part.out_channels for part in parts if isinstance(part, nn.Conv2d)}
    first |= {part.num_features for part in parts if isinstance(part, nn.BatchNorm2d)}
    if out.shape[-1] not in last or out.shape[1] in first | last - {out.shape[-1]}:
        return False if out.shape[1] in first | last else None
    if out.shape[1] == out.shape[-1]:
        raise ValueError(
            f"a layer ({type(layer).__name__}) outputs {tuple(out.shape)}, and whether its channels come "
            "first or last is unknown; name another layer, or give images of another size"
        )
    return True
