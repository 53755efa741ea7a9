"""Feed-forward style transfer and texture networks: one pass per image."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EDGE = 0.02  # black and white, as they go into the sigmoid: far from where it is flat
LEAST = 8
"""Side of the smallest photograph, in pixels: edges are mirrored."""
STEP = 4  # sides are multiples of it inside: two halvings


class _Block(nn.Sequential):
    """A convolution with reflected edges, so that no border shows, and instance normalisation."""

    def __init__(self, inputs: int, outputs: int, side: int, *, stride: int = 1, relu: bool = True):
        super().__init__(
            nn.Conv2d(inputs, outputs, side, stride, side // 2, padding_mode="reflect"),
            nn.InstanceNorm2d(outputs, affine=True),
            *([nn.ReLU()] if relu else []),
        )


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.path = nn.Sequential(_Block(channels, channels, 3), _Block(channels, channels, 3, relu=False))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.path(features)


class StylizerNetwork(nn.Module):
    """Maps a photograph to one in a style, of the same size: Johnson et al. 2016, arxiv.org/abs/1603.08155.

    Two halvings, residual blocks, two doublings by interpolation and convolution, which leave no
    checkerboard. Instance normalisation as in Ulyanov et al. 2017, arxiv.org/abs/1607.08022. What it outputs
    is added to the photograph before the sigmoid, which is ours: it starts from the photograph, which it need
    not learn to reproduce. That photograph is normalised, too, and its colours are mixed by a learned matrix:
    otherwise its brightness and contrast, which normalised features lack, could never be those of the style.

    Args:
        width: channels of the first convolution; 32 in the paper.
        blocks: residual blocks; 5 in the paper.
    """

    def __init__(self, *, width: int = 32, blocks: int = 5):
        super().__init__()
        if min(width, blocks) < 1:
            raise ValueError(f"width={width}, blocks={blocks}; wanted at least 1 of each")
        self.down = nn.Sequential(
            _Block(3, width, 9),
            _Block(width, 2 * width, 3, stride=2),
            _Block(2 * width, 4 * width, 3, stride=2),
        )
        self.residual = nn.Sequential(*(_Residual(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            _Block(4 * width, 2 * width, 3),
            nn.Upsample(scale_factor=2),
            _Block(2 * width, width, 3),
            nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect"),
        )
        mixed = nn.Conv2d(3, 3, 1)
        nn.init.dirac_(mixed.weight)  # each colour from itself
        assert mixed.bias is not None
        nn.init.zeros_(mixed.bias)
        self.colours = nn.Sequential(nn.InstanceNorm2d(3), mixed)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """The images in the style, in [0, 1]."""
        height, width = images.shape[2:]
        edge = (0, -width % STEP, 0, -height % STEP)
        # sides are padded to multiples by mirroring, and cropped again
        shown = F.pad(images, edge, mode="reflect") if any(edge) else images
        change = self.up(self.residual(self.down(shown)))[:, :, :height, :width]
        return (self.colours(images.logit(EDGE)) + change).sigmoid()


class TextureNetwork(nn.Module):
    """Maps noise at several scales to a texture: Ulyanov et al. 2016, arxiv.org/abs/1603.03417.

    From the coarsest noise up: each scale's noise goes through convolutions, and is joined to the doubled
    features of the scale before. It draws its noise itself; of the images it takes the number and the size.

    Args:
        width: channels that each scale adds.
        scales: how many; sides are multiples of 2 ** (scales - 1) inside.
    """

    def __init__(self, *, width: int = 8, scales: int = 5):
        super().__init__()
        if min(width, scales) < 1:
            raise ValueError(f"width={width}, scales={scales}; wanted at least 1 of each")
        self.scales = scales
        self.noises = nn.ModuleList(self._path(3, width) for _ in range(scales))
        self.joined = nn.ModuleList(self._path(width * (k + 2), width * (k + 2)) for k in range(scales - 1))
        self.last = nn.Conv2d(width * scales, 3, 1)

    @staticmethod
    def _path(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            _Block(inputs, outputs, 3), _Block(outputs, outputs, 3), _Block(outputs, outputs, 1)
        )

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Textures, in [0, 1]."""
        count, _, height, width = images.shape
        least = 2 ** (self.scales - 1)
        sides = [-(-side // least) * 2 for side in (height, width)]  # of the coarsest, so that edges reflect
        features: Tensor | None = None
        for scale, path in enumerate(self.noises):
            size = [side * 2**scale for side in sides]
            own = path(torch.rand(count, 3, *size, dtype=images.dtype, device=images.device))
            if features is None:
                features = own
            else:
                features = self.joined[scale - 1](
                    torch.cat([F.interpolate(features, scale_factor=2.0), own], 1)
                )
        assert features is not None
        return self.last(features)[:, :, :height, :width].sigmoid()


def stylizer_of(state: Mapping[str, Tensor]) -> StylizerNetwork | TextureNetwork:
    """The network that these weights are of.

    Raises:
        ValueError: they are of another one.
    """
    first, noise = state.get("down.0.0.weight"), state.get("noises.0.0.0.weight")
    if first is not None and first.dim() == 4 and len(first):
        blocks = {name.split(".")[1] for name in state if name.startswith("residual.")}
        network = StylizerNetwork(width=len(first), blocks=max(1, len(blocks)))
    elif noise is not None and noise.dim() == 4 and len(noise):
        scales = {name.split(".")[1] for name in state if name.startswith("noises.")}
        network = TextureNetwork(width=len(noise), scales=len(scales))
    else:
        raise ValueError("these weights are of no stylizer; wanted those that `fit stylize` saved")
    own = network.state_dict()
    if own.keys() != state.keys() or any(own[name].shape != value.shape for name, value in state.items()):
        raise ValueError("these weights are of another stylizer; wanted those that `fit stylize` saved")
    network.load_state_dict(dict(state))
    return network.eval()
