"""Image parametrisations: pixels, Fourier coefficients with a decaying spectrum, phases only (MACO)."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulgurite.probes.counted import counted
from fulgurite.probes.synthesis.colours import NATURAL_COLOURS
from fulgurite.probes.synthesis.frequencies import frequency_scale

Rows = slice | Sequence[int] | Int[Tensor, "m"]


class Canvas(nn.Module, ABC):
    """Images with parameters behind them; the first dimension of each parameter counts the images."""

    @abstractmethod
    def forward(self) -> Float[Tensor, "n c h w"]:
        """The images, in [0, 1]."""

    def project(self) -> None:
        """Bring the parameters back to where they make images in [0, 1]; called after every step."""

    def set_images(self, images: Float[Tensor, "n c h w"]) -> None:
        """Set the parameters so that the canvas shows these images, as closely as it can.

        Raises:
            ValueError: it can only be set by its parameters.
        """
        del images
        raise ValueError(f"{type(self).__name__} cannot be set to images; wanted Pixels or Fourier")

    @torch.inference_mode(False)
    @torch.no_grad()
    def take(self, rows: Rows) -> "Canvas":
        """A new canvas with copies of these images only, in this order."""
        part = copy.deepcopy(self)
        for module in part.modules():
            for name, own in module._parameters.items():
                if own is not None:
                    module._parameters[name] = nn.Parameter(own.detach()[_index(rows)].clone())
        return part

    @torch.no_grad()
    def put(self, rows: Rows, other: "Canvas") -> None:
        """Replace these images by those of another canvas of this kind, resized if they are of another size.

        Raises:
            ValueError: the other canvas is of another kind, or holds another number of images.
        """
        theirs = dict(other.named_parameters())
        mine = dict(self.named_parameters())
        same = type(other) is type(self) and theirs.keys() == mine.keys()
        if not same or any(own[0].shape != theirs[name][0].shape for name, own in mine.items()):
            raise ValueError(
                f"a {type(other).__name__} of other parameters to put on a {type(self).__name__}"
            )
        for name, own in mine.items():
            _replace(own, rows, theirs[name])


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

    @torch.no_grad()
    def set_images(self, images: Float[Tensor, "n c h w"]) -> None:
        """Copy the images; what is outside [0, 1] is cut off when the canvas is projected."""
        self.pixels.copy_(images)

    @torch.no_grad()
    def put(self, rows: Rows, other: Canvas) -> None:
        """Replace these images by those of any other canvas, resized if they are of another size."""
        _replace(self.pixels, rows, resized(other(), self.pixels.shape[2:]).clamp(0, 1))


class Spectral(Canvas):
    """Images made from spectra: through the inverse transform, natural colours and a sigmoid."""

    colours: Tensor
    background: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        mean: Sequence[float] | None,
        colours: Float[Tensor, "c c"] | None = None,
    ):
        super().__init__()
        self.shape = channels, _, _ = shape
        mean = [0.5] * channels if mean is None else list(mean)
        if len(mean) != channels:
            raise ValueError(f"wanted a mean for each of {counted(channels, 'channel')}, got {mean}")
        if colours is not None and (colours.shape != (channels, channels) or not colours.isfinite().all()):
            raise ValueError(f"colours {tuple(colours.shape)}; wanted finite ones, {channels} x {channels}")
        self.axes = None if colours is None else tuple(colours.flatten().tolist())
        self.register_buffer("colours", (NATURAL_COLOURS if colours is None else colours).detach().clone())
        self.register_buffer("background", torch.tensor(mean).logit(1e-3)[:, None, None])

    @property
    def mixes(self) -> bool:
        """Whether channels are mixed: RGB, and any that have axes of their own."""
        return self.shape[0] == 3 or self.axes is not None

    @abstractmethod
    def spectrum(self) -> Tensor:
        """Of each image before colours and sigmoid: [n, c, h, w // 2 + 1], complex."""

    @abstractmethod
    def adopt(self, spectrum: Tensor, rows: Rows = slice(None)) -> None:
        """Set the parameters of these images to those that come nearest to a spectrum."""

    def forward(self) -> Float[Tensor, "n c h w"]:
        """The inverse transform of the spectra, in natural colours, through a sigmoid."""
        return (self._mixed(self.waves()) + self.background).sigmoid()

    def waves(self) -> Float[Tensor, "n c h w"]:
        """The inverse transform of the spectra."""
        return torch.fft.irfft2(self.spectrum(), s=self.shape[1:])

    @torch.no_grad()
    def set_images(self, images: Float[Tensor, "n c h w"]) -> None:
        """Adopt the spectrum of these images; values are brought into [0.001, 0.999] first."""
        self.adopt(torch.fft.rfft2(self._unmixed(images.to(self.background).logit(1e-3) - self.background)))

    @torch.no_grad()
    def put(self, rows: Rows, other: Canvas) -> None:
        """Replace these images by those of another spectral canvas, resized if they are of another size.

        Raises:
            ValueError: the other canvas is of another kind, or holds another number of images.
        """
        if not isinstance(other, Spectral) or self.shape[0] != other.shape[0]:
            raise ValueError(
                f"a {type(other).__name__} to put on a {type(self).__name__}; wanted another one"
            )
        if type(self) is type(other) and self.shape == other.shape and self.axes == other.axes:
            super().put(rows, other)
            return
        waves = resized(other._mixed(other.waves()) + other.background, self.shape[1:])
        self.adopt(torch.fft.rfft2(self._unmixed(waves.to(self.background) - self.background)), rows)

    def _mixed(self, waves: Tensor) -> Tensor:
        return (self.colours @ waves.flatten(2)).view_as(waves) if self.mixes else waves

    def _unmixed(self, waves: Tensor) -> Tensor:
        if not self.mixes:
            return waves
        return (torch.linalg.inv(self.colours) @ waves.flatten(2)).view_as(waves)


class Fourier(Spectral):
    """Images made from spectra whose coefficients are scaled like those of natural images, through a sigmoid.

    A step then moves large and small structures at the same rate, where steps on pixels make fine noise
    first. Colours are mixed along their natural axes. Olah et al. 2017,
    distill.pub/2017/feature-visualization.

    Coefficients of standard deviation 1 make waves of standard deviation 1 before the sigmoid, at every size
    and decay: a step of an optimiser moves an image of 8 px as far as one of 512.

    Args:
        shape: channels, height and width.
        seeds: one for each image, so that an image does not depend on the others of the canvas.
        mean: the background, per channel, in (0, 1): what the image is before any step; 0.5 by default.
        decay: how fast the scale falls with frequency; 1 is that of natural images, more prefers large
            structures.
        spread: standard deviation of the first coefficients.
        colours: the axes along which channels are mixed, as columns: Lucid's for three channels by default,
            none for others; those of your images by `colour_matrix`.

    Raises:
        ValueError: `mean` is not one value per channel, or `colours` no matrix of them.
    """

    scale: Tensor

    @torch.inference_mode(False)
    def __init__(
        self,
        shape: tuple[int, int, int],
        seeds: Sequence[int],
        *,
        mean: Sequence[float] | None = None,
        decay: float = 1.0,
        spread: float = 0.015,
        colours: Float[Tensor, "c c"] | None = None,
    ):
        super().__init__(shape, mean, colours)
        channels, height, width = shape
        spectra = torch.empty(len(seeds), channels, height, width // 2 + 1, 2)
        for spectrum, seed in zip(spectra, seeds, strict=True):
            spectrum.normal_(0, spread, generator=torch.Generator().manual_seed(seed))
        self.spectra = nn.Parameter(spectra)
        self.register_buffer("scale", frequency_scale(height, width, decay))

    def spectrum(self) -> Tensor:
        """The coefficients, scaled."""
        return torch.view_as_complex(self.spectra) * self.scale

    @torch.no_grad()
    def adopt(self, spectrum: Tensor, rows: Rows = slice(None)) -> None:
        """Set the coefficients of these images so that they have this spectrum."""
        _replace(self.spectra, rows, torch.view_as_real(spectrum / self.scale))


class PhaseOnly(Spectral):
    """Images with spectra of a fixed magnitude; their phases are the parameters.

    So an optimiser cannot fill an image with fine noise. Fel et al. 2023 (MACO),
    arxiv.org/abs/2306.06805.

    Args:
        shape: channels, height and width.
        seeds: one for each image; phases begin evenly spread.
        magnitude: of natural images: see `magnitude_spectrum`.
        mean: as it was for the magnitude.

    Raises:
        ValueError: the magnitude is of another shape.
    """

    magnitude: Tensor

    @torch.inference_mode(False)
    def __init__(
        self,
        shape: tuple[int, int, int],
        seeds: Sequence[int],
        magnitude: Float[Tensor, "c h w2"],
        *,
        mean: Sequence[float] | None = None,
    ):
        super().__init__(shape, mean)
        size = (shape[0], shape[1], shape[2] // 2 + 1)
        if magnitude.shape != size:
            raise ValueError(f"a magnitude {tuple(magnitude.shape)} for images {shape}; wanted {size}")
        phases = torch.empty(len(seeds), *size)
        for phase, seed in zip(phases, seeds, strict=True):
            phase.uniform_(-torch.pi, torch.pi, generator=torch.Generator().manual_seed(seed))
        self.phases = nn.Parameter(phases)
        self.register_buffer("magnitude", magnitude.detach().clone())

    def spectrum(self) -> Tensor:
        """The magnitude, at these phases."""
        return torch.polar(self.magnitude.expand_as(self.phases), self.phases)

    @torch.no_grad()
    def adopt(self, spectrum: Tensor, rows: Rows = slice(None)) -> None:
        """Set the phases of these images to those of a spectrum."""
        _replace(self.phases, rows, spectrum.angle())


@torch.no_grad()
def magnitude_spectrum(
    images: Float[Tensor, "n c h w"], *, mean: Sequence[float] | None = None
) -> Float[Tensor, "c h w2"]:
    """The mean magnitude of the spectra of images, as a `PhaseOnly` canvas of their size wants it."""
    canvas = Fourier((images.shape[1], images.shape[2], images.shape[3]), range(len(images)), mean=mean)
    canvas.set_images(images)
    return canvas.spectrum().abs().mean(0)


def resized(images: Float[Tensor, "n c h w"], size: Sequence[int]) -> Float[Tensor, "n c h2 w2"]:
    """The images at another size, without aliasing."""
    if list(images.shape[2:]) == list(size):
        return images
    return F.interpolate(images, tuple(size), mode="bicubic", align_corners=False, antialias=True)


def _index(rows: Rows) -> slice | Tensor:
    return rows if isinstance(rows, slice) else torch.as_tensor(rows, dtype=torch.long)


def _replace(own: Tensor, rows: Rows, values: Tensor) -> None:
    places = _index(rows)
    wanted = len(range(len(own))[places]) if isinstance(places, slice) else len(places)
    if len(values) != wanted:
        raise ValueError(f"{len(values)} images to put in the place of {wanted}")
    own.data[places] = values.detach().to(own)
