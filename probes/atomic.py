"""Atomic file writes: a file is written completely, or is left as it was before."""

import contextlib
import csv
import errno
import io
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write to, which replaces `path` at the end of the block.

    It lies in the same folder under a random name, and no other file is ever touched. It is flushed to the
    disk before it is renamed, so that a crash or a full disk leaves the file that was there; where the block
    or the disk fails, it is removed. A symbolic link at `path` is replaced, not followed.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    # cut: names may have 255 bytes
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a file atomically, text as UTF-8; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def check_writable(path: str | Path) -> None:
    """Check that a file can be written there, by starting to, without touching an existing one.

    Raises:
        OSError: it could not: the folder is not there or read-only, the name is too long, or it is a folder.
    """
    path = Path(path)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def check_no_folder(folder: Path, names: Iterable[str]) -> None:
    """Check that no folder has the name of one of these files.

    Raises:
        OSError: one does.
    """
    for name in names:
        if (folder / name).is_dir():
            raise IsADirectoryError(f"{folder / name} is a folder; what is found is to be a file there")


def _sync_folder(folder: Path) -> None:
    # the rename itself; some file systems, and Windows, cannot
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
