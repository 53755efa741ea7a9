"""Where the channels of a layer's output are: first, or last as in transformers."""

from torch import Tensor, nn


def channels_first(out: Tensor, layer: nn.Module) -> Tensor:
    """A layer's output with its channels in dimension 1: [n, channels, ...].

    Outputs of three dimensions are tokens, [n, tokens, channels]. Maps have their channels last, as in Swin
    transformers, where the last dimension is one that a linear layer or LayerNorm of the layer puts out, and
    dimension 1 is no number of channels of any of its parts.

    Raises:
        ValueError: both are such numbers, so that it cannot be told.
    """
    if out.dim() == 3:
        return out.movedim(-1, 1)
    if out.dim() != 4:
        return out
    parts = list(layer.modules())
    last = {part.out_features for part in parts if isinstance(part, nn.Linear)}
    last |= {part.normalized_shape[-1] for part in parts if isinstance(part, nn.LayerNorm)}
    first = {part.out_channels for part in parts if isinstance(part, nn.Conv2d)}
    first |= {part.num_features for part in parts if isinstance(part, nn.BatchNorm2d)}
    if out.shape[-1] not in last or out.shape[1] in first | last - {out.shape[-1]}:
        return out
    if out.shape[1] == out.shape[-1]:
        raise ValueError(
            f"a layer ({type(layer).__name__}) puts out {tuple(out.shape)}, and whether its channels come "
            "first or last cannot be told; name another layer, or give images of another size"
        )
    return out.movedim(-1, 1)
