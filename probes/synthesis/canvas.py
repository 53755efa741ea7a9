"""Image parametrisations: pixels, and Fourier coefficients with a decaying spectrum."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Canvas(nn.Module, ABC):
    """Images with parameters behind them; the first dimension of each parameter counts the images."""

    @abstractmethod
    def forward(self) -> Float[Tensor, "n c h w"]:
        """The images, in [0, 1]."""

    def project(self) -> None:
        """Bring the parameters back to where they make images in [0, 1]; called after every step."""


class Pixels(Canvas):
    """Images whose pixels are the parameters, kept in [0, 1] by projection."""

    @torch.inference_mode(False)
    def __init__(self, start: Float[Tensor, "n c h w"]):
        super().__init__()
        self.pixels = nn.Parameter(start.detach().clone(memory_format=torch.contiguous_format))

    def forward(self) -> Float[Tensor, "n c h w"]:
        """The pixels themselves."""
        return self.pixels

    @torch.no_grad()
    def project(self) -> None:
        """Clamp to [0, 1]."""
        self.pixels.clamp_(0, 1)


# Lucid's matrix: the principal axes of natural colours, as columns; its largest column norm is divided out
_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]]) / 0.462


class Fourier(Canvas):
    """Images made from spectra whose coefficients are scaled like those of natural images, through a sigmoid.

    A step then moves large and small structures alike, where steps on pixels fill in fine noise first.
    Colours are mixed along their natural axes. Olah et al. 2017, distill.pub/2017/feature-visualization.

    Coefficients of standard deviation 1 make waves of standard deviation 1 before the sigmoid, at every size
    and decay: a step of an optimiser moves an image of 8 px as far as one of 512.

    Args:
        shape: channels, height and width.
        seeds: one for each image, so that an image does not depend on which others are painted with it.
        mean: the background, per channel, in (0, 1): what the image is before painting; 0.5 without it.
        decay: how fast the scale falls with frequency; 1 is that of natural images, more prefers large
            structures.
        spread: standard deviation of the first coefficients.

    Raises:
        ValueError: `mean` is not one value per channel.
    """

    scale: Tensor
    colours: Tensor
    background: Tensor

    @torch.inference_mode(False)
    def __init__(
        self,
        shape: tuple[int, int, int],
        seeds: Sequence[int],
        *,
        mean: Sequence[float] | None = None,
        decay: float = 1.0,
        spread: float = 0.015,
    ):
        super().__init__()
        self.shape = channels, height, width = shape
        mean = [0.5] * channels if mean is None else list(mean)
        if len(mean) != channels:
            raise ValueError(f"wanted a mean for each of {channels} channels, got {mean}")
        spectra = torch.empty(len(seeds), channels, height, width // 2 + 1, 2)
        for spectrum, seed in zip(spectra, seeds, strict=True):
            spectrum.normal_(0, spread, generator=torch.Generator().manual_seed(seed))
        self.spectra = nn.Parameter(spectra)
        self.register_buffer("scale", _scale(height, width, decay))
        self.register_buffer("colours", _COLOURS.clone())
        self.register_buffer("background", torch.tensor(mean).logit(1e-3)[:, None, None])

    def forward(self) -> Float[Tensor, "n c h w"]:
        """The inverse transform of the scaled spectra, in natural colours, through a sigmoid."""
        spectra = torch.view_as_complex(self.spectra) * self.scale
        waves = torch.fft.irfft2(spectra, s=self.shape[1:])
        if self.shape[0] == 3:
            waves = (self.colours @ waves.flatten(2)).view_as(waves)
        return (waves + self.background).sigmoid()


def _scale(height: int, width: int, decay: float) -> Float[Tensor, "h w2"]:
    """Factors of a half spectrum that fall with frequency, so that unit coefficients make unit waves."""
    frequencies = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    falling = frequencies.clamp(min=1 / max(height, width)) ** -decay
    # a column stands for two of the whole spectrum, but for the first, and the last where width is even
    twice = torch.full([width // 2 + 1], 2.0)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    return falling * (height * width / (twice * falling).norm())
