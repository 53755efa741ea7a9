"""Quick checks of image files by their first and last bytes, without decoding."""

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from fulgurite.data.bar_interval import bar_interval
from fulgurite.data.decoding import UnreadableImageError, opened, upright

THREADS = min(32, 4 * (os.cpu_count() or 1))
CHUNK = 1000
"""Files that a thread takes at a time."""
MOST_DECODED = 1000
"""Files with an odd beginning or end that are decoded in one check; others are found in loading."""

_TAIL = 4096
_NO_FILE, _NOT_REGULAR = (-1, 0, 0, 0), (-2, 0, 0, 0)
_INT64 = 2**63 - 1


def stamps(files: Sequence[str]) -> Int64[np.ndarray, "n 4"]:
    """Of each file the size in bytes, negative for no regular file, and when it last changed, in ns.

    And, where hard links to it exist, its device and inode; else zeros.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        return np.concatenate([np.zeros((0, 4), np.int64), *pool.map(_stamps, _chunks(files))])


def hard_links(files: Sequence[str], marks: Int64[np.ndarray, "n 4"]) -> list[tuple[str, str]]:
    """The files that are hard links to an earlier one, each after that one, in order."""
    first: dict[tuple[int, int], str] = {}
    pairs = []
    for place in np.flatnonzero(marks[:, 2:].any(1)).tolist():
        own = files[place]
        earlier = first.setdefault((int(marks[place, 2]), int(marks[place, 3])), own)
        if earlier != own and Path(earlier).samefile(own):
            pairs.append((earlier, own))
    return pairs


def complaints(files: Sequence[str], sizes: Sequence[int]) -> list[UnreadableImageError | None]:
    """Why each file cannot be an image, or None where its first and last bytes are correct.

    What is read of JPEG, PNG, GIF, WebP and BMP are a few bytes; of TIFF and PPM the header. Where beginning
    and end do not fit together, the image is decoded, up to `MOST_DECODED` of them.
    """
    found: list[UnreadableImageError | None] = [None] * len(files)
    with ThreadPoolExecutor(THREADS) as pool:
        progress = tqdm(
            total=len(files), desc="Checking", unit=" images", delay=2, mininterval=bar_interval()
        )
        odd = []
        for start, states in zip(
            range(0, len(files), CHUNK), pool.map(_odd, _chunks(files), _chunks(sizes)), strict=True
        ):
            odd += [start + place for place in states]
            progress.update(min(CHUNK, len(files) - start))
        progress.close()
        for check, places in ((_decoded, odd[:MOST_DECODED]), (_header, odd[MOST_DECODED:])):
            for place, error in zip(places, pool.map(check, [files[one] for one in places]), strict=True):
                found[place] = error
    return found


def _chunks(things: Sequence) -> list[Sequence]:
    return [things[start : start + CHUNK] for start in range(0, len(things), CHUNK)]


def _stamps(files: Sequence[str]) -> Int64[np.ndarray, "n 4"]:
    return np.array([_stamp(file) for file in files], np.int64)


def _stamp(file: str) -> tuple[int, int, int, int]:
    try:
        found = os.stat(file)  # noqa: PTH116 - a Path takes longer to make than to look up
    except OSError:
        return _NO_FILE
    if not stat.S_ISREG(found.st_mode):
        return _NOT_REGULAR
    if found.st_nlink == 1:
        return found.st_size, found.st_mtime_ns, 0, 0
    # some systems have numbers of 128 bits; files that are equal in that many are compared again
    return found.st_size, found.st_mtime_ns, found.st_dev & _INT64, found.st_ino & _INT64


def _odd(files: Sequence[str], sizes: Sequence[int]) -> list[int]:
    """The positions of those that are not clearly images."""
    return [
        place
        for place, (file, size) in enumerate(zip(files, sizes, strict=True))
        if size < 0 or not _plausible(file, size)
    ]


def _plausible(file: str, size: int) -> bool:
    try:
        # a file may have become a FIFO in the meantime, which must not block
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return False
    try:
        head = os.read(descriptor, 16)
        os.lseek(descriptor, max(0, size - _TAIL), os.SEEK_SET)
        return _fit(head, os.read(descriptor, _TAIL), size)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _fit(head: bytes, tail: bytes, size: int) -> bool:
    """Whether a file begins and ends as its format does."""
    if head.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" in tail  # some cameras write data after the image
    if head.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        return tail.endswith(b"IEND\xaeB`\x82")
    if head.startswith((b"GIF87a", b"GIF89a")):
        return tail.endswith(b";")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return int.from_bytes(head[4:8], "little") in (size - 8, size - 9)
    if head.startswith(b"BM"):
        return int.from_bytes(head[2:6], "little") == size
    return False


def _header(file: str) -> UnreadableImageError | None:
    return _error(file, decode=False)


def _decoded(file: str) -> UnreadableImageError | None:
    return _error(file, decode=True)


def _error(file: str, *, decode: bool) -> UnreadableImageError | None:
    try:
        with opened(Path(file)) as image:
            if decode and image.format not in ("TIFF", "PPM"):  # formats without an end marker
                # a JPEG is read to its end, but decoded at an eighth of its size
                image.draft("L", (1, 1))
                upright(image, channels=1)
    except UnreadableImageError as error:
        return error
    return None
