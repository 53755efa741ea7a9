"""Finding image files below a folder, each once, however many symbolic links lead to it."""

import os
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
HIDDEN = (".", "__MACOSX")
_HIDDEN_BELOW = (f"{os.sep}.", f"{os.sep}__MACOSX")


def files_below(path: Path) -> list[Path]:
    """The files in `path` and below, sorted; links are followed, and no file is listed twice.

    A file is listed by the path without links, if there is one. FIFOs, devices and broken links are listed
    too: the reader raises an error with their name.

    Raises:
        ValueError: a folder cannot be listed.
    """
    return list(map(Path, sorted(_by_real_path(path).values(), key=_parts)))


def only_images(files: Iterable[Path], path: Path, endings: tuple[str, ...] = ENDINGS) -> list[Path]:
    """The files below `path` with the suffix of an image, without hidden files and those of macOS."""
    return [file for file in files if _is_image(str(file), str(path), endings)]


def images_below(path: Path) -> list[Path]:
    """The images in `path` and below, sorted, each once; see `files_below`."""
    return list(map(Path, images_by_real_path(path).values()))


def images_by_real_path(
    path: Path, others: Counter[str] | None = None, endings: tuple[str, ...] = ENDINGS
) -> dict[str, str]:
    """The images in `path` and below, sorted, by their paths without links; see `files_below`.

    They are strings, as millions of `Path` objects take seconds to create. Other files that are not hidden
    are counted in `others`, by their suffixes.
    """
    folder = str(path)
    every = _by_real_path(path)
    found = {real: file for real, file in every.items() if _is_image(file, folder, endings)}
    if others is not None and len(found) < len(every):
        others.update(
            printable(Path(file).suffix.lower()) or "without an ending"
            for real, file in every.items()
            if real not in found and not _is_hidden(file, folder) and not file.lower().endswith(endings)
        )
    # sorting pairs would slow down the garbage collector with millions of tuples
    return {real: found[real] for real in sorted(found, key=lambda real: _parts(found[real]))}


def _by_real_path(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    links: list[str] = []
    visited = set[str]()
    # folders before links to folders
    folders = deque([(str(path), os.path.realpath(path))])
    linked = deque[tuple[str, str]]()
    while folders or linked:
        place, real = (folders or linked).popleft()
        if real in visited:
            continue
        visited.add(real)
        inside, into = [], []
        for entry in _entries(place):
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if Path(target).is_dir():
                    into.append((entry.path, target))
                else:
                    links.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                inside.append((entry.path, f"{real}{os.sep}{entry.name}"))
            else:
                found[f"{real}{os.sep}{entry.name}"] = entry.path
        folders.extend(sorted(inside))
        linked.extend(sorted(into))
    for link in sorted(links, key=_parts):
        found.setdefault(os.path.realpath(link), link)
    return found


def _parts(path: str) -> str:
    """Sorts as the parts of the path do."""
    return path.replace(os.sep, "\0")


def _is_image(file: str, folder: str, endings: tuple[str, ...]) -> bool:
    if not file.lower().endswith(endings):
        return False
    return not _is_hidden(file, folder)


def _is_hidden(file: str, folder: str) -> bool:
    below = os.sep + file.removeprefix(folder).lstrip(os.sep)
    return _HIDDEN_BELOW[0] in below or _HIDDEN_BELOW[1] in below  # any() takes twice as long


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is skipped: hidden ones, and metadata of macOS."""
    return name.startswith(HIDDEN)


def printable(name: str | Path) -> str:
    r"""The name on one line, as text: a byte that is not UTF-8 as `\xff`, a control character as `\n`.

    Names that differ stay different, but for those that hold such escapes themselves.
    """
    return "".join(map(_escaped, str(name)))


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # Python's surrogate for such a byte
        return f"\\x{ord(letter) - 0xDC00:02x}"
    if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp"):
        return letter.encode("unicode_escape").decode()
    return letter


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ValueError(f"the folder {printable(folder)} cannot be listed: {error.strerror}") from None
