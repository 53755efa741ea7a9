"""Tar shards of images: where they are, and how many images of each label are in each."""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from tqdm import tqdm

from fulgurite.data.bar_interval import bar_interval
from fulgurite.data.header_check import THREADS
from fulgurite.data.image_files import ENDINGS, printable
from fulgurite.data.user_cache import cache_file, replace_file

MOST_SHARDS = 1_000_000
LONGEST_LABEL = 1000
"""Bytes of a `.cls` entry."""
LABEL = "cls"


@dataclass(frozen=True)
class Shard:
    """A tar file of images, each with a `.cls` entry of the same name, and the images of each label."""

    path: Path
    labels: dict[str, int]

    def __len__(self) -> int:
        return sum(self.labels.values())


def shards_of(where: str | Path) -> list[Path]:
    """The tar files of a folder, of a pattern such as `train-{000..009}.tar` or `train-*.tar`, or one file.

    Raises:
        ValueError: there are none, or some that a pattern in braces names are missing.
    """
    import braceexpand  # an extra  # pyright: ignore[reportMissingImports]

    where = str(where)
    if "://" in where or where.startswith("pipe:"):
        raise ValueError(f"{printable(where)} is not a path; shards are read from files: mount or copy them")
    place = Path(where).expanduser()
    if place.is_dir():
        found = sorted(file for file in place.iterdir() if file.name.endswith(".tar") and file.name[0] != ".")
    else:
        if _most_names(where) > MOST_SHARDS:
            raise ValueError(f"{printable(where)} names more than {MOST_SHARDS} shards")
        try:
            names = list(braceexpand.braceexpand(str(place)))
        except braceexpand.UnbalancedBracesError:  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(f"{printable(where)} has a brace without its other one") from None
        found = [file for name in names for file in _matching(name)]
        if found and (missing := [file for file in found if not file.is_file()]):
            if len(missing) < len(found):
                raise ValueError(f"{len(missing)} of {len(found)} shards are missing: {_some(missing)}")
            found = []
    if not found:
        raise ValueError(
            f"no shard matches {printable(where)}; wanted a folder of .tar files or a pattern in quotes, "
            "such as 'data/train-{000..009}.tar'"
        )
    return list(dict.fromkeys(found))


def entry(name: str) -> tuple[str, str]:
    """The name of a file in an archive and its suffix in lower case, as webdataset groups them."""
    from webdataset.tariterators import base_plus_ext  # an extra  # pyright: ignore[reportMissingImports]

    key, ending = base_plus_ext(name)
    return ("", "") if key is None else (key, str(ending).lower())


def is_image(ending: str) -> bool:
    """Whether files of this ending, without a dot in front, are taken for images."""
    return f".{ending}".endswith(ENDINGS)


def indexed(paths: Sequence[Path]) -> list[Shard]:
    """The shards, each with the number of its images of each label; those that have changed are read.

    The counts are kept in the user's cache folder, as JSON.

    Raises:
        ValueError: one cannot be read as a tar, holds no images, or an image has no label.
    """
    file = cache_file("shards", paths[0].parent, ".json")
    known = {} if file is None else _read(file)
    stamps = [(path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    names = [str(path.absolute()) for path in paths]
    fresh = [
        place
        for place, (name, stamp) in enumerate(zip(names, stamps, strict=True))
        if known.get(name, (0, 0, {}))[:2] != stamp
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        counts = pool.map(_counted, [paths[place] for place in fresh])
        counted = tqdm(counts, "Counting", len(fresh), unit=" shards", delay=2, mininterval=bar_interval())
        for place, labels in zip(fresh, counted, strict=True):
            known[names[place]] = (*stamps[place], labels)
    if fresh and file is not None:
        _write(file, known)
    return [Shard(path, known[name][2]) for path, name in zip(paths, names, strict=True)]


def _most_names(pattern: str) -> int:
    """At least as many as there are names of a pattern, which may be more than there is memory for."""
    most = 1
    while (shorter := re.sub(r"\{[^{}]*\}", "", pattern)) != pattern:
        for braces in re.findall(r"\{[^{}]*\}", pattern):
            ends = re.match(r"\{(-?\d+)\.\.(-?\d+)", braces)
            most *= abs(int(ends[2][:20]) - int(ends[1][:20])) + 1 if ends else braces.count(",") + 1
        pattern = shorter
    return most


def _matching(name: str) -> list[Path]:
    place = Path(name)
    return sorted(place.parent.glob(place.name)) if any(sign in place.name for sign in "*?[") else [place]


def _some(files: Sequence[Path]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(map(printable, files[:3])) + more


def _counted(path: Path) -> dict[str, int]:
    labels = Counter[str]()
    where = printable(path)
    try:
        for key, image, label in _entries(path):
            if image and label is None:
                raise ValueError(f"{where} has no label for {printable(key)}; wanted {printable(key)}.cls")
            if image and label is not None:
                labels[label] += 1
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{where} cannot be read as a tar: {printable(str(error))}") from None
    if not labels:
        raise ValueError(f"{where} holds no images; wanted pairs such as 0001.jpg and 0001.cls")
    return dict(labels)


def _entries(path: Path) -> Iterator[tuple[str, bool, str | None]]:
    """Each name, whether there is an image of it, and its label."""
    last, image, label = "", False, None
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            vars(tar)["members"] = []  # otherwise tarfile keeps all members
            key, ending = entry(member.name)
            if not (member.isreg() and key):
                continue
            if key != last:
                yield last, image, label
                last, image, label = key, False, None
            if ending == LABEL and (file := tar.extractfile(member)) is not None:
                label = label_of(file.read(LONGEST_LABEL))
            image = image or is_image(ending)
    yield last, image, label


def label_of(content: bytes) -> str:
    """The label in a `.cls` entry."""
    return printable(content.decode("utf-8", "surrogateescape").strip())


def _read(file: Path) -> dict[str, tuple[int, int, dict[str, int]]]:
    try:
        content = json.loads(file.read_bytes())
        return {
            str(name): (int(size), int(time), {str(label): int(count) for label, count in labels.items()})
            for name, (size, time, labels) in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        rank_zero_info(
            f"the index of shards is rebuilt: {printable(file)} is damaged ({type(error).__name__})"
        )
        return {}


def _write(file: Path, known: dict[str, tuple[int, int, dict[str, int]]]) -> None:
    try:
        replace_file(file, json.dumps(known).encode())
    except OSError as error:
        rank_zero_warn(
            f"the index of shards {printable(file)} cannot be written: {error.strerror}; they will be "
            "counted again at the next start"
        )
