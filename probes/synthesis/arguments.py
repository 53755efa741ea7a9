"""Checks of what images are made from: classes, shape, background, seeds and starts."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fulgurite.probes.counted import counted

ROUNDING = 0.01
"""Tolerance around [0, 1], for starts whose normalisation was undone."""


def check_between(
    name: str, value: Any, least: float, most: float = math.inf, *, above: bool = False
) -> None:
    """Check that an argument is a finite number from `least` (or `above` it) to `most`.

    Raises:
        ValueError: it is not.
    """
    number = isinstance(value, (int, float)) and math.isfinite(value)
    if not number or not least <= value <= most or (above and value == least):
        wanted = f"above {least:g}" if above else f"of at least {least:g}"
        raise ValueError(
            f"{name}={value!r}; wanted a number {wanted}{f', at most {most:g}' * (most < math.inf)}"
        )


def check_background(background: Any, channels: int | None = None) -> None:
    """Check that a background is a value in [0, 1] for each channel; None is whatever the default is.

    Raises:
        ValueError: it is not.
    """
    if background is None:
        return
    values = background.tolist() if isinstance(background, Tensor) else background
    if not isinstance(values, Sequence) or channels not in (None, len(values)):
        count = "a value" if channels is None else counted(channels, "value")
        raise ValueError(
            f"background={background}; wanted {count} in [0, 1], one per channel: {[0.5] * (channels or 3)} "
            "is mid-grey"
        )
    if not all(0 <= value <= 1 for value in values):
        scaled = ": divide by 255" if max(values) > 16 and min(values) >= 0 else ""
        raise ValueError(f"background={background}; wanted values in [0, 1]{scaled}")


def check_shape(shape: Any) -> None:
    """Check that a shape is channels, height and width.

    Raises:
        ValueError: it is not.
    """
    if len(shape) != 3:
        raise ValueError(f"shape={tuple(shape)}; wanted channels, height and width")


def check_classes(classes: Any) -> None:
    """Check that classes are a tensor of whole numbers, one for each image.

    Raises:
        ValueError: they are not.
    """
    kind = f"{classes.dtype} {tuple(classes.shape)}" if isinstance(classes, Tensor) else f"{classes!r}"
    whole = isinstance(classes, Tensor) and not classes.is_floating_point() and classes.dtype != torch.bool
    if not whole or classes.dim() != 1:
        raise ValueError(
            f"classes that are {kind}; wanted a tensor with the number of a class for each image, such as "
            "torch.tensor([3, 7])"
        )


def check_seeds(seeds: Sequence[int] | None, count: int) -> None:
    """Check that there is a seed for each image, or none at all.

    Raises:
        ValueError: there are more or fewer.
    """
    if seeds is not None and len(seeds) != count:
        raise ValueError(
            f"{counted(len(seeds), 'seed')} for {counted(count, 'image')}; wanted one for each, or none"
        )


def check_start(start: Any, shape: Sequence[int]) -> None:
    """Check that images to start from, if there are any, have this shape, and pixels in [0, 1].

    Raises:
        ValueError: they have not.
    """
    if start is None:
        return
    if tuple(start.shape) != tuple(shape):
        raise ValueError(f"start is {tuple(start.shape)}; wanted {tuple(shape)}, a start for each image")
    if not start.numel():
        return
    low, high = torch.stack(torch.aminmax(start.detach())).tolist()
    if not start.is_floating_point() or not (low >= -ROUNDING and high <= 1 + ROUNDING):
        scaled = ": start / 255" if low >= 0 and high > 16 else ""
        raise ValueError(
            f"start is {start.dtype} from {low:.3g} to {high:.3g}; wanted pixels in [0, 1]{scaled}"
        )


def check_asked(
    classes: Any,
    shape: Any,
    background: Any,
    seeds: Sequence[int] | None,
    start: Any,
) -> None:
    """Check all that every method of class images takes.

    Raises:
        ValueError: it does not fit together, or is out of range.
    """
    check_classes(classes)
    check_shape(shape)
    check_background(background, shape[0])
    check_seeds(seeds, len(classes))
    check_start(start, (len(classes), *shape))
