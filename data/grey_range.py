"""The range of greyscale images of more than 8 bits: 10, 12, 14 or 16, as the files show it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fulgurite.data.decoding import UnreadableImageError, opened

LOOKED_AT = 32
"""Files that are decoded to find the range, spread evenly."""
_BITS = (8, 10, 12, 14, 16)


def white_of(files: Sequence[str]) -> int | None:
    """The value that is white: the largest of the fewest bits that hold all pixels of some of the files.

    None where none of these is grey of 16 bits, or a file says itself how many bits there are.
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
            continue  # named elsewhere
    return white_from(largest)


def white_from(largest: int) -> int | None:
    """The largest value of the fewest bits that hold this one; None below 0, or where 16 do not."""
    if not 0 <= largest < 2 ** _BITS[-1]:
        return None
    return next(2**bits - 1 for bits in _BITS if largest < 2**bits)


def _says_bits(image: object) -> bool:
    return getattr(image, "tag_v2", {}).get(258, (16,))[0] != 16
