"""State in objects of C: byte arrays, shared memory, caches of functions, databases, large arrays."""

import array
import ctypes
import functools
import sqlite3
import zlib
from collections.abc import Callable
from multiprocessing.sharedctypes import SynchronizedBase
from typing import Any

import numpy as np

HASHED = 2**31
"""Bytes of arrays that are too large to copy, and are looked at for changes."""
_NUMBER = ctypes.c_int.__base__ or ctypes.c_int
_CTYPES = ctypes.Array | ctypes.Structure | _NUMBER
_CACHE = type(functools.lru_cache(lambda: None))
KINDS = array.array | bytearray | _CTYPES | SynchronizedBase | sqlite3.Connection | _CACHE
Lost = Callable[[str], object]


def saved(found: Any, path: str, lost: Lost, fits: Callable[[int], bool]) -> Callable[[], object] | None:
    """A function that restores an object to its present state, or reports a change; None if it is too large.

    Args:
        found: one of `KINDS`.
        path: its name in reports.
        lost: is called with what cannot be restored.
        fits: whether this many bytes can be copied.
    """
    if isinstance(found, SynchronizedBase):
        return saved(found.get_obj(), path, lost, fits)
    if isinstance(found, _CTYPES):
        size = ctypes.sizeof(found)
        before = ctypes.string_at(ctypes.addressof(found), size) if fits(size) else None
        return None if before is None else lambda: ctypes.memmove(ctypes.addressof(found), before, size)
    if isinstance(found, array.array | bytearray):
        size = len(found) * getattr(found, "itemsize", 1)
        return functools.partial(_put_back, found, found[:]) if fits(size) else None
    if isinstance(found, sqlite3.Connection):
        return functools.partial(_compare, found, found.total_changes, path, lost)
    return functools.partial(_forget, found, found.cache_info(), path, lost)


def watched(found: np.ndarray, path: str, lost: Lost) -> Callable[[], object] | None:
    """A function that reports a change of an array too large to copy; None if it cannot be read quickly."""
    if found.nbytes > HASHED or not found.flags.c_contiguous:
        return None
    before = _checksum(found)

    def compare() -> None:
        if _checksum(found) != before:
            lost(f"{path}, an array too large to copy, was written to")

    return compare


def _checksum(found: np.ndarray) -> int:
    return zlib.crc32(found.reshape(-1).view(np.uint8).data)


def _put_back(found: Any, before: Any) -> None:
    found[:] = before


def _compare(found: sqlite3.Connection, before: int, path: str, lost: Lost) -> None:
    try:
        changed = found.total_changes != before
    except sqlite3.Error:  # closed, or of another thread
        changed = True
    if changed:
        lost(f"{path}, a database, was written to")


def _forget(found: Any, before: Any, path: str, lost: Lost) -> None:
    """Empty a cache that was empty; from any other, new entries cannot be removed alone."""
    if found.cache_info() == before:
        return
    if before.misses == before.hits == 0:
        found.cache_clear()
    elif found.cache_info().misses != before.misses:
        lost(f"{path}, a function with a cache, has kept new answers")
