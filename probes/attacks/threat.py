"""Threat models: Linf, L2 and L1 balls around an image, within pixel bounds."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.projections import TINY, moved_by, threshold, within_length

Bound = float | Sequence[float] | Tensor  # for all channels, or one for each


@dataclass(frozen=True)
class Threat(ABC):
    """A ball around each image, and bounds that no pixel may leave.

    Args:
        radius: of the ball, in the images' units; "8/255" is understood.
        bounds: the lowest and the highest value of a pixel, or of each channel's; None for no bounds.
    """

    radius: float | str
    bounds: tuple[Bound, Bound] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", _number(self.radius))
        if self.bounds is not None:
            object.__setattr__(self, "bounds", _bounds(self.bounds))

    @property
    def epsilon(self) -> float:
        """The radius as a number."""
        assert isinstance(self.radius, float)
        return self.radius

    def at(self, radius: float | str) -> "Threat":
        """The same threat with another radius."""
        return replace(self, radius=radius)

    @abstractmethod
    def sample(self, images: Float[Tensor, "n c h w"], draws: PerImageRandom) -> Float[Tensor, "n c h w"]:
        """Points drawn evenly from the balls around the images, then brought within bounds."""

    @abstractmethod
    def step(self, gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The step of length 1 along which a linear function with this gradient grows fastest; 0 for 0."""

    @abstractmethod
    def project(
        self, moved: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """The nearest point (Euclidean) that is within the radius of the image and within bounds."""

    def around(
        self, images: Float[Tensor, "n c h w"]
    ) -> Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]:
        """A projection into the balls around these images, prepared once; it may overwrite the points."""
        return partial(self.project, images=images)

    @abstractmethod
    def length(self, shifts: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
        """How long shifts are, in this threat's norm."""

    def distance(
        self, moved: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n"]:
        """How far each image was moved, in this threat's norm."""
        return self.length(moved - images)

    def bounded(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images, cut off at the bounds."""
        low, high = self.limits(images)
        return images.clamp(low, high)

    def limits(self, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor]:
        """The bounds as tensors that broadcast with the images; infinite without bounds.

        Raises:
            ValueError: bounds for another number of channels.
        """
        found = []
        for bound in self.bounds or (-math.inf, math.inf):
            assert isinstance(bound, float | tuple)
            per_channel = _on(bound, images.dtype, images.device)
            if per_channel.dim() and len(per_channel) != images.shape[1]:
                raise ValueError(f"bounds for {len(per_channel)} channels, images with {images.shape[1]}")
            found.append(per_channel[:, None, None] if per_channel.dim() else per_channel)
        return found[0], found[1]


class Linf(Threat):
    """Every pixel may move by at most `radius`.

    Raises:
        ValueError: pixels are in [0, 1], and the radius is above 1, as if meant for 0 to 255; from 1000 on
            it stands for no limit.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bounds == (0.0, 1.0) and 1 < self.epsilon < 1000:
            raise ValueError(f"{_boundless(f'radius={self.epsilon:g}', self.epsilon)}, or other bounds=")

    def sample(self, images: Float[Tensor, "n c h w"], draws: PerImageRandom) -> Float[Tensor, "n c h w"]:
        """Evenly within `radius` of each pixel."""
        shifts = draws.uniform(*images.shape[1:]).mul_(2).sub_(1).mul_(self.epsilon)
        return self.bounded(shifts.add_(images))

    def step(self, gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The gradient's signs."""
        return gradient.sign()

    def project(
        self, moved: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Each pixel clamped to the radius and to its bounds."""
        return self.around(images)(moved.clone())

    def around(
        self, images: Float[Tensor, "n c h w"]
    ) -> Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]:
        """The same, with the lowest and highest value of each pixel computed once."""
        lowest, highest = self.bounded(images - self.epsilon), self.bounded(images + self.epsilon)
        return lambda moved: moved.clamp_(lowest, highest)

    def length(self, shifts: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
        """The largest absolute shift."""
        return shifts.flatten(1).abs().amax(1)


class L2(Threat):
    """The shifts of all pixels may have a Euclidean length of at most `radius`."""

    def sample(self, images: Float[Tensor, "n c h w"], draws: PerImageRandom) -> Float[Tensor, "n c h w"]:
        """Evenly in the ball: in 3072 dimensions, nearly always close to its surface."""
        directions = self.step(draws.normal(*images.shape[1:]))
        lengths = draws.uniform(1, 1, 1) ** (1 / images[0].numel())
        return self.bounded(moved_by(images, self.epsilon * lengths * directions))

    def step(self, gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The gradient, brought to length 1."""
        return gradient / self.length(gradient).clamp(min=TINY)[:, None, None, None]

    def project(
        self, moved: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """The shift made shorter, pixels at their bounds staying there."""
        low, high = (limit - images for limit in self.limits(images))
        return self.bounded(moved_by(images, within_length(moved - images, low, high, self.epsilon)))

    def length(self, shifts: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
        """The Euclidean length."""
        return shifts.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class L1(Threat):
    """The absolute shifts of all pixels may sum to at most `radius`.

    Args:
        share: the share of the pixels that a step moves, those with the largest gradients, all by the same
            amount. The steepest step moves one pixel only, and fails in practice (Tramèr & Boneh 2019,
            arxiv.org/abs/1904.13000).
    """

    share: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}; wanted a share of the pixels above 0 and at most 1")

    def sample(self, images: Float[Tensor, "n c h w"], draws: PerImageRandom) -> Float[Tensor, "n c h w"]:
        """Evenly in the ball: exponential draws over their sum and one draw more, with random signs."""
        spread = -torch.log1p(-draws.uniform(*images.shape[1:]))
        whole = spread.flatten(1).sum(1)[:, None, None, None] - torch.log1p(-draws.uniform(1, 1, 1))
        signs = (draws.uniform(*images.shape[1:]) - 0.5).sign()
        return self.bounded(moved_by(images, self.epsilon * signs * spread / whole.clamp(min=TINY)))

    def step(self, gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The signs of the steepest pixels, in equal parts."""
        count = max(1, round(self.share * gradient[0].numel()))
        sizes = gradient.flatten(1).abs()
        lowest = sizes.topk(count, 1).values[:, -1:]
        signs = gradient.flatten(1).sign() * (sizes >= lowest)
        return (signs / signs.abs().sum(1, keepdim=True).clamp(min=1)).view_as(gradient)

    def project(
        self, moved: Float[Tensor, "n c h w"], images: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Each shift made smaller by the same, down to 0, pixels at their bounds staying there."""
        low, high = (limit - images for limit in self.limits(images))
        shifts = moved - images
        room = torch.where(shifts > 0, high, -low).flatten(1).double()
        sizes = shifts.flatten(1).abs().double()
        less = threshold(sizes, room, self.epsilon)
        left = (sizes - less[:, None]).clamp(min=0).minimum(room).view(shifts.shape).to(shifts)
        return self.bounded(moved_by(images, shifts.sign() * left))

    def length(self, shifts: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
        """The sum of the absolute shifts."""
        return shifts.flatten(1).abs().sum(1)


THREATS: dict[str, type[Threat]] = {"linf": Linf, "l2": L2, "l1": L1}


def check_radius(threat: Threat, option: str) -> None:
    """Check that a threat to pixels in [0, 1] moves them, but cannot turn any image into any other.

    Args:
        threat: the threat.
        option: the option that gave its radius, such as "--radius 8".

    Raises:
        ValueError: it does not.
    """
    if not threat.epsilon:
        raise ValueError(f"{option} moves no pixel; wanted such as 8/255 or 0.1")
    if isinstance(threat, Linf) and threat.epsilon >= 1:
        raise ValueError(_boundless(option, threat.epsilon))


def threat_within(kind: type[Threat], radius: float | str, option: str, *, still: bool = False) -> Threat:
    """The threat of this kind to pixels in [0, 1], with a radius that `check_radius` allows.

    Args:
        kind: `Linf`, `L2` or `L1`.
        radius: as of `Threat`.
        option: the option that gave it, such as "--radius 8".
        still: whether a radius of 0 is allowed, too.

    Raises:
        ValueError: it is no radius, moves nothing, or turns any image into any other.
    """
    boundless = kind(radius, bounds=None)
    if boundless.epsilon or not still:
        check_radius(boundless, option)
    return kind(radius)


def _boundless(option: str, radius: float) -> str:
    of_bytes = f"{radius:.4g}/255" if radius < 255 else "8/255"
    return f"{option} turns any image into any other: pixels are in [0, 1]; wanted such as {of_bytes} or 0.1"


@functools.lru_cache(maxsize=64)
def _on(bound: float | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A bound as a tensor on a device, cached there, as each copy waits for the device."""
    with torch.inference_mode(False):
        return torch.tensor(bound, dtype=dtype, device=device)


def _number(radius: float | str) -> float:
    try:
        over, slash, under = str(radius).partition("/")
        value = float(over) / float(under if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f'radius={radius!r}; wanted a number, or a fraction such as "8/255"') from None
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"radius={radius!r}; wanted a finite number of at least 0")
    return value


def _bounds(bounds: tuple[Bound, Bound]) -> tuple[float | tuple[float, ...], ...]:
    wrong = f"bounds={bounds}; wanted the lowest and the highest value of a pixel, or of each channel's"
    try:
        low, high = (torch.as_tensor(bound, dtype=torch.float64).flatten().tolist() for bound in bounds)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(wrong) from None
    wide = max(len(low), len(high))
    if (
        not wide
        or {len(low), len(high)} - {1, wide}
        or not all(a < b for a, b in zip(low * (wide // len(low)), high * (wide // len(high)), strict=True))
    ):
        raise ValueError(wrong)
    return tuple(bound[0] if len(bound) == 1 else tuple(bound) for bound in (low, high))
