"""Shape bias: decisions by shape where shape and texture disagree (Geirhos et al. 2019)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulgurite.probes.counted import counted

SIXTEEN: Mapping[str, tuple[int, ...]] = {
    "airplane": (404,),
    "bear": (294, 295, 296, 297),
    "bicycle": (444, 671),
    "bird": (
        *(8, *range(10, 17), 18, 19, 20, 22, 23, 24, *range(80, 84), *range(87, 97), 98, 99, 100),
        *(*range(127, 134), 135, *range(136, 146)),
    ),
    "boat": (472, 554, 625, 814, 914),
    "bottle": (440, 720, 737, 898, 899, 901, 907),
    "car": (436, 511, 817),
    "cat": (281, 282, 283, 284, 285, 286),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 892),
    "dog": (
        *(*range(152, 192), *range(193, 204), *range(205, 227), *range(228, 242)),
        *(*range(243, 251), *range(252, 258), 259, *range(261, 264), *range(265, 269)),
    ),
    "elephant": (385, 386),
    "keyboard": (508, 878),
    "knife": (499,),
    "oven": (766,),
    "truck": (555, 569, 656, 675, 717, 734, 864, 867),
}
"""The categories of Geirhos et al. 2019, and the ImageNet classes that are members of each."""


@dataclass(frozen=True)
class ShapeBias:
    """How a network classifies images whose shape and texture disagree.

    Args:
        by_shape: the images classified by their shape.
        by_texture: those classified by their texture; the others are classified by neither.
    """

    by_shape: Bool[Tensor, "n"]
    by_texture: Bool[Tensor, "n"]

    @property
    def bias(self) -> float:
        """The share of predictions by the shape among those by the shape or the texture; NaN without any."""
        right = self.by_shape.sum()
        return float(right / (right + self.by_texture.sum()))

    @property
    def hit_rate(self) -> float:
        """The share of predictions that are by the shape or the texture; NaN without images."""
        return float((self.by_shape | self.by_texture).float().mean())

    def interval(self, *, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
        """The 95 % interval of the bias, by bootstrap over the images; NaN where there is no bias."""
        generator, count = torch.Generator().manual_seed(seed), len(self.by_shape)
        if self.hit_rate != self.hit_rate or self.hit_rate == 0:
            return float("nan"), float("nan")
        rows = torch.randint(count, (draws, count), generator=generator)
        right, hits = self.by_shape[rows].sum(1), (self.by_shape | self.by_texture)[rows].sum(1)
        found = (right / hits)[hits > 0]
        low, high = found.quantile(torch.tensor([0.025, 0.975])).tolist()
        return low, high


def shape_answers(
    logits: Float[Tensor, "n k"], shapes: Int[Tensor, "n"], textures: Int[Tensor, "n"]
) -> ShapeBias:
    """Which images are classified by their shape, and which by their texture.

    Args:
        logits: of each image, or any scores whose largest is the answer.
        shapes: the class that its shape is of.
        textures: the class that its texture is of, never the same.

    Raises:
        ValueError: shape and texture of an image are of the same class.
    """
    if same := int((shapes == textures).sum()):
        raise ValueError(
            f"{counted(same, 'image')} whose shape and texture are of one class; wanted cue conflicts alone"
        )
    answers = logits.argmax(1).cpu()
    return ShapeBias(answers == shapes.cpu(), answers == textures.cpu())


def shape_bias(
    logits: Float[Tensor, "n k"], shapes: Int[Tensor, "n"], textures: Int[Tensor, "n"]
) -> Float[Tensor, ""]:
    """The share of predictions by the shape among those by the shape or by the texture, in [0, 1].

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


def category_probabilities(
    logits: Float[Tensor, "n k"], members: Mapping[str, Sequence[int]] = SIXTEEN
) -> Float[Tensor, "n categories"]:
    """For each category the mean of its members' probabilities, as Geirhos et al. decide by.

    Raises:
        ValueError: the network has fewer classes.
    """
    highest = max(max(own) for own in members.values())
    if logits.shape[1] <= highest:
        raise ValueError(
            f"{logits.shape[1]} classes, but class {highest} is a member; wanted ImageNet's 1000"
        )
    chances = logits.softmax(1)
    return torch.stack([chances[:, list(own)].mean(1) for own in members.values()], 1)
