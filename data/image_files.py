"""Finding image files below a folder, each once whatever symbolic links lead to it."""

import os
import unicodedata
from collections import deque
from collections.abc import Iterable
from pathlib import Path

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")


def files_below(path: Path) -> list[Path]:
    """What is in `path` and below and is no folder, sorted; links are followed, and no file is listed twice.

    A file is listed by the path without links, if there is one. FIFOs, devices and links to nothing are
    listed too: the reader refuses them by name.

    Raises:
        ValueError: a folder cannot be listed.
    """
    found: dict[str, Path] = {}
    links: list[Path] = []
    visited = set[str]()
    # folders themselves before those that links lead to
    folders = deque([(path, os.path.realpath(path))])
    linked = deque[tuple[Path, str]]()
    while folders or linked:
        place, real = (folders or linked).popleft()
        if real in visited:
            continue
        visited.add(real)
        for entry in _entries(place):
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if Path(target).is_dir():
                    linked.append((Path(entry.path), target))
                else:
                    links.append(Path(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), f"{real}{os.sep}{entry.name}"))
            else:
                found[f"{real}{os.sep}{entry.name}"] = Path(entry.path)
    for link in sorted(links):
        found.setdefault(os.path.realpath(link), link)
    return sorted(found.values())


def only_images(files: Iterable[Path], path: Path) -> list[Path]:
    """Those of the files below `path` whose names end as an image's do, hidden ones and macOS's left out."""
    return [
        file
        for file in files
        if file.name.lower().endswith(ENDINGS) and not any(map(hidden, file.relative_to(path).parts))
    ]


def images_below(path: Path) -> list[Path]:
    """The images in `path` and below, sorted, each once; see `files_below`."""
    return only_images(files_below(path), path)


def real_paths(files: Iterable[Path]) -> dict[str, Path]:
    """The files by their paths without links."""
    folders: dict[Path, str] = {}
    real: dict[str, Path] = {}
    for file in files:
        if file.is_symlink():
            real[os.path.realpath(file)] = file
        else:
            if file.parent not in folders:
                folders[file.parent] = os.path.realpath(file.parent)
            real[f"{folders[file.parent]}{os.sep}{file.name}"] = file
    return real


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over: hidden ones, and what macOS leaves behind."""
    return name.startswith((".", "__MACOSX"))


def printable(name: str | Path) -> str:
    r"""The name on one line, as text: a byte that is not UTF-8 as `\xff`, a control character as `\n`.

    Names that differ stay different, but for those that hold such escapes themselves.
    """
    return "".join(map(_escaped, str(name)))


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python holds such a byte
        return f"\\x{ord(letter) - 0xDC00:02x}"
    if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp"):
        return letter.encode("unicode_escape").decode()
    return letter


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"the folder {printable(folder)} cannot be listed: {error.strerror}") from None
