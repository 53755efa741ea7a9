"""Tokens of vision transformers and mixers as maps: the grid of patches that they belong to."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.record import bare


class TokenGrid(NamedTuple):
    """How a layer's tokens lie in the image.

    Args:
        prefix: the number of tokens before the patches, such as a class token.
        size: height and width of the grid of patches, row by row.
    """

    prefix: int
    size: tuple[int, int]

    def maps(self, tokens: Float[Tensor, "*k n t d"]) -> Float[Tensor, "*k n d h w"]:
        """The tokens as maps, without the prefix."""
        return tokens[..., self.prefix :, :].unflatten(-2, self.size).movedim(-1, -3)


def token_grid(network: nn.Module, shape: Sequence[int]) -> TokenGrid | None:
    """The grid of a layer's output of this shape, [n, tokens, d]; None if the network does not define one.

    timm's networks define it by `grid_size` and `num_prefix_tokens`, torchvision's vision transformer by
    `image_size`, `patch_size` and `class_token`.
    """
    if len(shape) != 3:
        return None
    parts = list(bare(network).modules())
    prefixes = {
        0,
        *(count for part in parts if isinstance(count := getattr(part, "num_prefix_tokens", 0), int)),
    }
    prefixes |= {1 for part in parts if isinstance(getattr(part, "class_token", None), nn.Parameter)}
    for height, width in _grids(parts):
        for prefix in sorted(prefixes):
            if height * width > 1 and shape[1] == prefix + height * width:
                return TokenGrid(prefix, (height, width))
    return None


def _grids(parts: Sequence[nn.Module]) -> Iterator[tuple[int, int]]:
    for part in parts:
        match getattr(part, "grid_size", None):
            case (int(height), int(width)):
                yield height, width
        match getattr(part, "image_size", None), getattr(part, "patch_size", None):
            case int(side), int(patch) if patch > 0:
                yield side // patch, side // patch
