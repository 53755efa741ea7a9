"""Compositional pattern-producing networks as canvases: images as smooth functions of position."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.counted import counted
from fulgurite.probes.synthesis.canvas import Canvas


class CPPN(Canvas):
    """Images whose pixels are the outputs of a small network at their positions, a network for each image.

    They are smooth and can be shown at any size: put on a canvas of another size, they are drawn again. With
    `adam(0.005)` and some hundred steps they grow from plain to rich. Stanley 2007; Mordvintsev et al. 2018,
    distill.pub/2018/differentiable-parameterizations.

    Args:
        shape: channels, height and width.
        seeds: one for each image.
        width: units of each hidden layer; each answers by an arctangent and by its square.
        depth: hidden layers.
        mean: the background, per channel, in (0, 1): what the image is before any step; 0.5 by default.
        spread: standard deviation of the first pattern before the sigmoid, about; plain without it.

    Raises:
        ValueError: `mean` is not one value per channel, or there is no hidden layer.
    """

    positions: Tensor

    @torch.inference_mode(False)
    def __init__(
        self,
        shape: tuple[int, int, int],
        seeds: Sequence[int],
        *,
        width: int = 24,
        depth: int = 8,
        mean: Sequence[float] | None = None,
        spread: float = 0.0,
    ):
        super().__init__()
        self.shape = channels, height, across = shape
        mean = [0.5] * channels if mean is None else list(mean)
        if len(mean) != channels or min(width, depth) < 1:
            raise ValueError(
                f"wanted a mean for each of {counted(channels, 'channel')}, width and depth of at least 1; "
                f"got {mean}, width={width}, depth={depth}"
            )
        sizes = [2, *[2 * width] * depth]
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        for layer, size in enumerate(sizes):
            out, scale = (channels, spread) if layer == depth else (width, 1.0)
            weights = torch.empty(len(draws), out, size)
            for own, generator in zip(weights, draws, strict=True):
                own.normal_(0, scale * size**-0.5, generator=generator)
            biases = torch.zeros(len(draws), out, 1)
            if layer == depth:
                biases += torch.tensor(mean).logit(1e-3)[:, None]
            self.register_parameter(f"weights{layer}", nn.Parameter(weights))
            self.register_parameter(f"biases{layer}", nn.Parameter(biases))
        self.depth = depth
        self.register_buffer("positions", _positions(height, across))

    def forward(self) -> Float[Tensor, "n c h w"]:
        """The networks' answers, through a sigmoid."""
        values = self.positions
        for layer in range(self.depth + 1):
            values = self.get_parameter(f"weights{layer}") @ values + self.get_parameter(f"biases{layer}")
            if layer < self.depth:
                bent = values.atan()
                # each of about unit variance, so that activations neither vanish nor explode with depth
                values = torch.cat([bent / 0.67, (bent.square() - 0.45) / 0.6], 1)
        return values.sigmoid().unflatten(2, self.shape[1:])


def _positions(height: int, width: int) -> Float[Tensor, "2 hw"]:
    """Coordinates of unit variance on the longer side, the same scale in both directions."""
    sides = [torch.arange(size) + 0.5 - size / 2 for size in (height, width)]
    grid = torch.meshgrid(*(side * (2 * 3**0.5 / max(height, width)) for side in sides), indexing="ij")
    return torch.stack(grid).flatten(1)
