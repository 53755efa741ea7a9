"""The bit depth of greyscale images of more than 8 bits: 10, 12, 14 or 16, from the pixels of files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fulgurite.data.decoding import UnreadableImageError, opened

LOOKED_AT = 32
"""Files that are decoded to find the range, spread evenly."""
_BITS = (8, 10, 12, 14, 16)


def white_of(files: Sequence[str]) -> int | None:
    """The value that is white: the largest value of the smallest bit depth that fits some of the files.

    None where none of these is 16-bit grey, or a file states its bit depth.
    """
    count = min(LOOKED_AT, len(files))
    largest = -1
    for place in range(count):
        try:
            with opened(Path(files[place * len(files) // count])) as image:
                if not image.mode.startswith("I;16") or _says_bits(image):
                    continue
                largest = max(largest, int(np.asarray(image.convert("I")).max()))
        except UnreadableImageError:
            continue  # reported elsewhere
    return white_from(largest)


def white_from(largest: int) -> int | None:
    """The largest value of the smallest bit depth that fits this value; None below 0, or above 16 bits."""
    if not 0 <= largest < 2 ** _BITS[-1]:
        return None
    return next(2**bits - 1 for bits in _BITS if largest < 2**bits)


def _says_bits(image: object) -> bool:
    return getattr(image, "tag_v2", {}).get(258, (16,))[0] != 16
