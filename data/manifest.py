"""The manifest of a folder: the image files that have been checked, and which of them are bad."""

import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from fulgurite.data.decoding import UnreadableImageError
from fulgurite.data.header_check import complaints, hard_links, stamps
from fulgurite.data.image_files import printable
from fulgurite.data.user_cache import cache_file, replace_file

VERSION = 1
LONGEST_JOURNAL = 2**24
"""The most bytes of the journal that are read at the next start."""


class DamagedError(ValueError):
    """The manifest is damaged or of another version."""


@dataclass
class _Checked:
    """Files that have been checked, by their paths in the folder; `bad` has the reasons by place."""

    names: list[str]
    sizes: np.ndarray
    times: np.ndarray
    bad: dict[int, str]


class Manifest:
    """Results of checks of a folder's image files, in the user's cache folder.

    It is a `.npz` file of plain numbers and text, replaced atomically, and next to it a journal of lines of
    JSON: the images that loading could not decode. One that is damaged is rebuilt. It only saves time: it
    never changes what is trained on.
    """

    def __init__(self, folder: Path):
        self.folder = str(folder)
        self.file = cache_file("manifests", folder, ".npz")
        self.journal = None if self.file is None else self.file.with_suffix(".bad")
        self.hard_links: list[tuple[str, str]] = []
        """Of the files checked, those that are hard links to an earlier one, each after that one."""

    def check(self, files: Sequence[str]) -> dict[str, str]:
        """Why images of the folder are bad, from earlier checks; new and changed ones are checked.

        See `header_check`: images with a correct beginning and end are not decoded.
        """
        names = [self._name(file) for file in files]
        marks = stamps(files)
        self.hard_links = hard_links(files, marks)
        marks = marks[:, :2]
        known = self._read()
        found = self._journal()
        fresh, reasons = _compare(known, names, marks)
        lasting = np.ones(len(names), bool)
        for place, error in zip(
            fresh, complaints([files[one] for one in fresh], marks[fresh, 0].tolist()), strict=True
        ):
            if error is not None:
                reasons[place], lasting[place] = error.reason, error.lasting
        for place, name in enumerate(names) if found else ():
            size, time, reason = found.get(name, (-1, 0, ""))
            if size == marks[place, 0] and time == marks[place, 1]:
                reasons.setdefault(place, reason)
        if len(fresh) or found or known is None or len(known.names) != len(names):
            kept = np.flatnonzero(lasting & (marks[:, 0] >= 0)).tolist()
            self._write(names, marks, reasons, kept)
        return {files[place]: reason for place, reason in sorted(reasons.items())}

    def note(self, error: UnreadableImageError) -> None:
        """Record an error of loading, so that the image is named at the next start; from any process."""
        with suppress(OSError):
            found = error.file.stat()
            line = (
                json.dumps([self._name(str(error.file)), found.st_size, found.st_mtime_ns, error.reason])
                + "\n"
            )
            if error.lasting and self.journal is not None:
                self.journal.parent.mkdir(parents=True, exist_ok=True)
                # one write at the end of the file: lines of several processes do not mix
                with self.journal.open("ab", buffering=0) as journal:
                    journal.write(line.encode())

    def _name(self, path: str) -> str:
        return path.removeprefix(self.folder).lstrip(os.sep)

    def _read(self) -> _Checked | None:
        try:
            return None if self.file is None else _unpacked(self.file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, DamagedError) as error:
            rank_zero_info(f"the manifest of {printable(self.folder)} is rebuilt: {error}")
            return None

    def _journal(self) -> dict[str, tuple[int, int, str]]:
        """The errors of loading, by name; invalid lines are skipped."""
        found = {}
        with suppress(OSError):
            if self.journal is not None:
                with self.journal.open("rb") as journal:
                    lines = journal.read(LONGEST_JOURNAL).splitlines()
                for line in lines:
                    with suppress(ValueError, RecursionError):
                        match json.loads(line):
                            case [str(name), int(size), int(time), str(reason)]:
                                found[name] = size, time, printable(reason)
        return found

    def _write(
        self, names: Sequence[str], marks: np.ndarray, reasons: dict[int, str], kept: Sequence[int]
    ) -> None:
        if self.file is None or self.journal is None:
            return
        bad = {str(new): reasons[old] for new, old in enumerate(kept) if old in reasons}
        try:
            replace_file(self.file, _packed([names[one] for one in kept], marks[kept], bad))
            self.journal.unlink(missing_ok=True)
        except OSError as error:
            rank_zero_warn(
                f"the manifest {printable(self.file)} cannot be written: {error.strerror}; the images of "
                f"{printable(self.folder)} will be checked again at the next start"
            )


def _compare(known: _Checked | None, names: list[str], marks: np.ndarray) -> tuple[list[int], dict[int, str]]:
    """The places of files that are new or have changed, and the reasons of the others that are bad."""
    if known is None:
        return list(range(len(names))), {}
    if known.names == names:
        old = np.arange(len(names))
    else:
        places = {name: place for place, name in enumerate(known.names)}
        old = np.array([places.get(name, -1) for name in names], np.int64)
    there = old >= 0
    same = np.zeros(len(names), bool)
    for column, values in enumerate((known.sizes, known.times)):
        same[there] = (values[old[there]] == marks[there, column]) & (same[there] if column else True)
    pairs = enumerate(old.tolist()) if known.bad else ()
    reasons = {now: known.bad[before] for now, before in pairs if before in known.bad and same[now]}
    return np.flatnonzero(~same).tolist(), reasons


def _packed(names: Sequence[str], marks: np.ndarray, bad: dict[str, str]) -> bytes:
    file = io.BytesIO()
    text = np.frombuffer("\0".join(names).encode("utf-8", "surrogatepass"), np.uint8)
    reasons = np.frombuffer(json.dumps(bad).encode(), np.uint8)
    np.savez(
        file,
        allow_pickle=False,
        version=np.int64(VERSION),
        names=text,
        sizes=marks[:, 0],
        times=marks[:, 1],
        bad=reasons,
    )
    return file.getvalue()


def _unpacked(content: bytes) -> _Checked:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if int(arrays["version"]) != VERSION:
                raise DamagedError("it is of another version")
            text = arrays["names"].tobytes().decode("utf-8", "surrogatepass")
            names = text.split("\0") if text else []
            sizes, times = arrays["sizes"], arrays["times"]
            bad = json.loads(arrays["bad"].tobytes())
            if not (sizes.shape == times.shape == (len(names),) and sizes.dtype == times.dtype == np.int64):
                raise DamagedError("its parts do not fit together")
            reasons = {
                int(place): printable(reason) for place, reason in bad.items() if isinstance(reason, str)
            }
            return _Checked(names, sizes, times, reasons)
    except DamagedError:
        raise
    # zip files and headers of arrays that are damaged raise anything
    except Exception as error:
        raise DamagedError(f"it is damaged ({type(error).__name__})") from error
