"""The user's cache folder, and files in it that are replaced atomically."""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder, for files that can be rebuilt.

    It is FULGURITE_CACHE, else `fulgurite` in XDG_CACHE_HOME, else in ~/.cache.

    Raises:
        RuntimeError: the user has no home folder.
    """
    if named := os.environ.get("FULGURITE_CACHE"):
        return Path(named)
    # by the XDG specification, a relative path is ignored
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "fulgurite"


def cache_file(kind: str, place: str | Path, ending: str) -> Path | None:
    """The cache file of this kind for a folder, by its resolved path; None without a cache folder."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(place))).hexdigest()[:32]
    with contextlib.suppress(RuntimeError):
        return cache_folder() / kind / f"{name}{ending}"
    return None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file atomically, completely or not at all; its folder is created.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
