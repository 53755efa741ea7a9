"""Decoded images in a memory-mapped file of the user's cache folder, so that each is decoded once."""

import hashlib
import mmap
import os
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fulgurite.data.image_files import printable
from fulgurite.data.user_cache import cache_file

try:
    import fcntl
except ImportError:  # without such locks, nothing is cached
    fcntl = None

ENTRY = struct.Struct("<32s5qL")
"""Key of an image, offset and bytes of its pixels, height, width, channels, checksum of the pixels."""
SEALED = struct.Struct("<L")  # checksum of the entry itself
LEAST_FREE = 2**30
"""Bytes that stay free on the disk."""


class DecodedCache:
    """Images of a folder as pixels, appended to one file as they are decoded, and read by memory mapping.

    Cached pixels equal decoded ones: an image is identified by its path, size, time of change and the way of
    decoding, and its pixels by a checksum, which is compared once in each process. Any number of processes
    read and append. An index next to the file has one entry for each image, written after its pixels, so that
    a process may be killed at any moment. Damaged entries are decoded again; when the disk is nearly full,
    images are decoded each time, which is reported once. Pixels of images that have changed since stay in the
    file; delete it to free the space.

    Args:
        folder: of the images; the cache folder has two files for it, `decoded/*.pixels` and `*.index`.
        how: further settings that the pixels depend on, such as the number of channels.
        side: the shorter side is reduced to this many pixels; 0 keeps the images as they are.
    """

    def __init__(self, folder: str | Path, *, how: str, side: int = 0):
        if side < 0:
            raise ValueError(
                f"decoded={side}; wanted the shorter side of what is kept in pixels, or 0 for all"
            )
        self.folder, self.side = str(folder), side
        self.how = f"{how} side={side}".encode()
        self.pixels = cache_file("decoded", folder, ".pixels")
        self.index = None if self.pixels is None else self.pixels.with_suffix(".index")
        self.full = self.pixels is None or fcntl is None
        self._forget()

    def _forget(self) -> None:
        self._known = dict[bytes, tuple[int, int, int, int, int, int]]()
        self._read_to = 0
        self._map: mmap.mmap | None = None
        self._compared = set[bytes]()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for own in ("_known", "_read_to", "_map", "_compared"):
            del state[own]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, file: str, decode: Callable[[], Image.Image]) -> Image.Image:
        """The image of this file: from the cache, or decoded and kept.

        Raises:
            what `decode` raises; then nothing is kept.
        """
        with suppress(OSError):
            found = Path(file).stat()
            key = hashlib.sha256(
                b"\0".join(
                    (
                        os.fsencode(file.removeprefix(self.folder).lstrip(os.sep)),
                        f"{found.st_size} {found.st_mtime_ns}".encode(),
                        self.how,
                    )
                )
            ).digest()
            if (image := self._kept(key)) is not None:
                return image
            image = self._reduced(decode())
            if not self.full:
                self._keep(key, image)
            return image
        return self._reduced(decode())

    def _reduced(self, image: Image.Image) -> Image.Image:
        shorter = min(image.size)
        if not self.side or shorter <= self.side:
            return image
        width, height = (max(1, round(side * self.side / shorter)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def _kept(self, key: bytes) -> Image.Image | None:
        if key not in self._known:
            self._read_index()
        if (entry := self._known.get(key)) is None:
            return None
        offset, count, height, width, channels, checksum = entry
        pixels = self._mapped(offset + count)
        if pixels is None:
            return None
        part = memoryview(pixels)[offset : offset + count]
        if key not in self._compared:
            if zlib.crc32(part) != checksum:
                del self._known[key]
                return None
            self._compared.add(key)
        values = np.frombuffer(part, np.uint8)
        return Image.fromarray(
            values.reshape((height, width) if channels == 1 else (height, width, channels))
        )

    def _mapped(self, end: int) -> mmap.mmap | None:
        """The file of pixels, at least up to this byte; None where it is shorter."""
        if self._map is None or len(self._map) < end:
            assert self.pixels is not None
            with suppress(OSError, ValueError), self.pixels.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map if self._map is not None and len(self._map) >= end else None

    def _read_index(self) -> None:
        """The entries that this and other processes have added."""
        if self.index is None:
            return
        with suppress(FileNotFoundError), self.index.open("rb") as file:
            file.seek(self._read_to)
            content = file.read()
            whole = len(content) - len(content) % LENGTH
            for key, entry in _entries(content[:whole]):
                self._known[key] = entry
            self._read_to += whole

    def _keep(self, key: bytes, image: Image.Image) -> None:
        assert self.pixels is not None
        assert self.index is not None
        values = np.ascontiguousarray(np.asarray(image))
        try:
            self.pixels.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.pixels.parent).free < LEAST_FREE + values.nbytes:
                raise OSError(f"less than {LEAST_FREE >> 20} MiB of the disk are free")
            with _alone(self.pixels.with_suffix(".lock")):
                offset = _append(self.pixels, values.tobytes())
                height, width, channels = (*values.shape, 1)[:3]
                packed = ENTRY.pack(
                    key, offset, values.nbytes, height, width, channels, zlib.crc32(values.tobytes())
                )
                _append(self.index, packed + SEALED.pack(zlib.crc32(packed)), unit=LENGTH)
        except OSError as error:
            self.full = True
            warnings.warn(
                f"decoded images of {printable(self.folder)} are no longer kept in "
                f"{printable(self.pixels.parent)}: {error.strerror or error}; they are decoded each time",
                stacklevel=2,
            )


LENGTH = ENTRY.size + SEALED.size


def _entries(content: bytes) -> Iterator[tuple[bytes, tuple[int, int, int, int, int, int]]]:
    """The undamaged entries."""
    for begin in range(0, len(content), LENGTH):
        packed = content[begin : begin + ENTRY.size]
        (checksum,) = SEALED.unpack_from(content, begin + ENTRY.size)
        if zlib.crc32(packed) == checksum:
            key, *entry = ENTRY.unpack(packed)
            offset, count, height, width, channels, _ = entry
            if offset >= 0 and channels in (1, 3) and 0 < count == height * width * channels:
                yield key, tuple(entry)


def _append(path: Path, content: bytes, *, unit: int = 1) -> int:
    """Where in the file the content begins, at a whole number of units; all of it is written, or nothing."""
    with path.open("ab", buffering=0) as file:
        begin = file.tell()
        try:
            if begin % unit:  # left by a killed process
                begin = file.truncate(begin - begin % unit)
            written = 0
            while written < len(content):
                written += file.write(memoryview(content)[written:]) or 0
        except BaseException:
            file.truncate(begin)
            raise
        return begin


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process is in such a block with this path."""
    with path.open("ab") as file:
        assert fcntl is not None
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
