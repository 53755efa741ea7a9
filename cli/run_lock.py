"""Exclusive locks on a run's folder, and removal of what a failed run made."""

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from fulgurite.data.image_files import printable

try:
    import fcntl
except ImportError:  # Windows: a folder is still created by only one process
    fcntl = None

FOLDER = "FULGURITE_RUN"
"""Environment variable of the folder, for processes that the main process starts."""

NAMED = 5  # files in a folder that are not the run's, named in a message


class HeldError(ValueError):
    """Another process has locked the folder."""


@dataclass
class Claim:
    """A folder that only this process writes to, and the folders created for it, the innermost first."""

    folder: Path
    made: list[Path] = field(default_factory=list)
    lock: int | None = None

    def release(self) -> None:
        """Let others have it."""
        if self.lock is not None:
            assert fcntl is not None
            fcntl.flock(self.lock, fcntl.LOCK_UN)
            _locks.discard(self.lock)
            os.close(self.lock)
            self.lock = None

    def remove(self, *, content: bool) -> None:
        """Remove the folders created for it: with their content, or only where they are empty."""
        if content and self.folder in self.made:
            shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            for place in filter(Path.exists, self.made):
                place.rmdir()


def claim(folder: str | Path | None, *, root: Path) -> Claim:
    """Claim a folder, or the next free one in `root`: root/0, root/1 ...

    An existing folder is locked, so that another process that claims it gets an error; a missing one is
    created, by the first process.

    Raises:
        HeldError: another process writes to it.
        OSError: it cannot be made.
    """
    if folder is None:
        return _next(root)
    folder = Path(folder)
    made = _parents(folder)
    while True:
        try:
            folder.mkdir()
            made.insert(0, folder)
        except FileExistsError:
            if not folder.is_dir():
                raise
        except BaseException:
            Claim(folder, made).remove(content=False)
            raise
        # a process that failed may have removed it in the meantime
        with contextlib.suppress(FileNotFoundError):
            return Claim(folder, made, _locked(folder))


@contextlib.contextmanager
def claimed(folder: str | Path | None, *, root: Path) -> Iterator[Claim]:
    """A claim within the block; the folders created for it are removed if it fails and they are empty.

    Other processes get the folder from the environment if the main one started them; else they use `root`
    until `broadcast`.
    """
    if not is_main_process():
        yield Claim(Path(os.environ.get(FOLDER) or folder or root))
        return
    own = claim(folder, root=root)
    os.environ[FOLDER] = str(own.folder)
    try:
        yield own
    except BaseException:
        own.remove(content=False)
        raise
    finally:
        own.release()


def name_others(folder: Path, *, ours: Collection[str]) -> None:
    """Print a line on other files in a folder before anything is written into it.

    Raises:
        ValueError: a file there has a name of `ours`, and would be written over.
    """
    others = sorted(place.name for place in folder.iterdir())
    if taken := [name for name in others if name in ours]:
        raise ValueError(
            f"{folder} holds {taken[0]}, which is of no run there and would be written over; choose another "
            "--folder"
        )
    if others and is_main_process():
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        named = ", ".join(map(printable, others[:NAMED]))
        rank_zero_info(f"{printable(folder)} holds other files, which are not changed: {named}{more}")


def is_main_process() -> bool:
    """Whether this is the first process of all, on the first machine of all; known before training begins."""
    node = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or "0"
    return rank_zero_only.rank == 0 and node == "0"  # pyright: ignore[reportFunctionMemberAccess]


def _next(root: Path) -> Claim:
    while True:
        made = _parents(root / "0")
        numbers = [int(place.name) for place in root.glob("*") if place.name.isdecimal()]
        folder = root / str(max(numbers, default=-1) + 1)
        # another process may have created or resumed it, or removed its parent
        with contextlib.suppress(FileExistsError, FileNotFoundError, HeldError):
            folder.mkdir()
            return Claim(folder, [folder, *made], _locked(folder))


def _parents(folder: Path) -> list[Path]:
    """Create its missing parent folders; returns them, the innermost first."""
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        Claim(folder, made).remove(content=False)
        raise
    return made


_locks = set[int]()


def _locked(folder: Path) -> int | None:
    """A lock on the folder itself, which leaves no file, and is released however the process ends."""
    if fcntl is None:
        return None
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise HeldError(
            f"another process writes to {folder}; wait until it ends, or choose another --folder"
        ) from None
    except OSError:  # a file system without locks
        os.close(lock)
        return None
    if not folder.exists() or not os.path.samestat(os.fstat(lock), folder.stat()):
        os.close(lock)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    _locks.add(lock)
    return lock


def _forget() -> None:
    # a worker process must not keep the lock after the training process was killed
    for lock in _locks:
        os.close(lock)
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
