"""Shape bias: decisions by shape where shape and texture disagree (Geirhos et al. 2019)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def shape_bias(
    logits: Float[Tensor, "n k"], shapes: Int[Tensor, "n"], textures: Int[Tensor, "n"]
) -> Float[Tensor, ""]:
    """The share of answers by the shape among those by the shape or by the texture, in [0, 1].

    Of images whose shape is of one class and whose texture of another; answers of a third class do not count.
    NaN where there are no others. Geirhos et al. 2019, arxiv.org/abs/1811.12231.

    Args:
        logits: of each image.
        shapes: the class that its shape is of.
        textures: the class that its texture is of.
    """
    answers = logits.argmax(1)
    by_shape, by_texture = ((answers == own.to(answers.device)).sum() for own in (shapes, textures))
    return torch.true_divide(by_shape, by_shape + by_texture)
