"""Colour composites: which channels of an image of many are shown as red, green and blue."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from jaxtyping import Float
from torch import Tensor

Composite = str | Sequence[int]
COMPOSITES: Mapping[str, tuple[int, int, int]] = {
    "first three": (0, 1, 2),
    "reversed": (2, 1, 0),
    "infrared": (3, 0, 1),
    "sentinel-2 natural": (3, 2, 1),
    "sentinel-2 infrared": (7, 3, 2),
}
"""By name, the channels that are red, green and blue, counted from 0.

"infrared" is the false colour of red, green, blue and near infrared in this order; the last two are of
Sentinel-2's 13 bands.
"""
_CHOSEN = ContextVar[tuple[int, int, int] | None]("composite", default=None)
_NOTED = ContextVar[dict[str, None] | None]("noted composites", default=None)


def channels_of(composite: Composite | None) -> tuple[int, int, int] | None:
    """The channels of a composite that is named, or given by three numbers, as "3,2,1" too.

    Raises:
        ValueError: there is none of this name, or there are not three numbers of at least 0.
    """
    if composite is None:
        return None
    if isinstance(composite, str) and composite in COMPOSITES:
        return COMPOSITES[composite]
    if isinstance(composite, str) and re.fullmatch(r"\d+(, ?\d+){2}", composite):
        composite = [int(number) for number in composite.split(",")]
    if isinstance(composite, str) or len(composite) != 3 or min(composite) < 0:
        raise ValueError(
            f"composite={composite!r}; wanted one of {', '.join(COMPOSITES)}, or the numbers of the channels "
            "that are red, green and blue, such as (3, 2, 1)"
        )
    red, green, blue = composite
    return red, green, blue


@contextmanager
def shown_as(composite: Composite | None) -> Iterator[None]:
    """Within the block, images of 2, 4 or more channels are shown by this composite; None changes nothing."""
    if (chosen := channels_of(composite)) is None:
        yield
        return
    before = _CHOSEN.set(chosen)
    try:
        yield
    finally:
        _CHOSEN.reset(before)


@contextmanager
def composites_noted() -> Iterator[Mapping[str, None]]:
    """Gives a line for each composite that is shown within the block, as keys: which channels are shown."""
    lines: dict[str, None] = {}
    before = _NOTED.set(lines)
    try:
        yield lines
    finally:
        _NOTED.reset(before)


def shown_composites() -> list[str]:
    """The lines of the innermost block of `composites_noted` so far; none outside of one."""
    return list(_NOTED.get() or {})


def composite_in_words(chosen: tuple[int, int, int], count: int) -> str:
    """Which channels of how many are red, green and blue."""
    colours = dict[int, list[str]]()
    for name, channel in zip(("red", "green", "blue"), chosen, strict=True):
        colours.setdefault(channel, []).append(name)
    parts = [f"{' and '.join(names)} channel {channel}" for channel, names in colours.items()]
    return f"shown as {', '.join(parts)} (of {count}, counted from 0)"


def composed(image: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n k h w"]:
    """The channels that are shown, one or three: of 2, the first is red and the second cyan; of more, the
    composite that is chosen, or the first three.

    Raises:
        ValueError: the image lacks one of them.
    """
    count = image.shape[-3]
    if count in (1, 3):
        return image
    chosen = _CHOSEN.get() or ((0, 1, 1) if count == 2 else (0, 1, 2))
    if max(chosen) >= count:
        raise ValueError(f"a composite of channels {chosen}, but images have {count}, counted from 0")
    if (noted := _NOTED.get()) is not None:
        noted[composite_in_words(chosen, count)] = None
    return image[..., list(chosen), :, :]
