"""Finding image files in one folder per class."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fulgurite.data.image_files import ENDINGS, hidden, images_below, images_by_real_path, printable

OfClass = dict[str, list[str]]
"""The paths of the images of each class."""
ByRealPath = dict[str, dict[str, str]]
"""The images of each class, by their resolved paths."""
_ONE_PART = "an image is either for training or for evaluation"


def folders(path: Path) -> list[Path]:
    """The folders in `path`, links to folders too, in order of name; hidden ones and macOS's left out."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not hidden(entry.name))
    except OSError as error:
        raise ValueError(f"the folder {printable(path)} cannot be listed: {error.strerror}") from None


def images_by_class(path: Path, others: Counter[str], endings: tuple[str, ...] = ENDINGS) -> ByRealPath:
    """The images of each folder in `path`, by its name, made printable; counts other files by their endings.

    Raises:
        ValueError: there are not two classes, one is empty, one holds a data set, or two share an image by a
            link.
    """
    inside, where = folders(path), printable(path)
    if sets := [printable(folder) for folder in inside if _holds_data_set(folder)]:
        some = f"{' or '.join(sets[:3])}{' ...' * (len(sets) > 3)}"
        raise ValueError(
            f"{where} holds data sets, with train/ and val/ or test/ of their own; "
            f"wanted one folder per class: was {some} meant?"
        )
    found = {printable(folder.name): images_by_real_path(folder, others, endings) for folder in inside}
    if not found:
        what = "loose images but no class folders" if images_below(path) else "no class folders"
        raise ValueError(f"{where} has {what}; wanted one folder per class, {where}/<class>/<image>.jpg")
    if not any(found.values()):
        hint = "; .npy files are read with channels=2, or 4 to 13, or by a loader" if others[".npy"] else ""
        raise ValueError(f"no images in any folder of {where}; images end in {' '.join(endings)}{hint}")
    if empty := [f"{where}/{name}" for name, files in found.items() if not files]:
        raise ValueError(f"no images in {', '.join(empty)}; add some, or remove the folder")
    if len(found) == 1:
        (inner,) = folders(path)
        what_would_do = f"was {printable(inner)} meant?" if len(folders(inner)) > 1 else "add a second"
        raise ValueError(
            f"only one class in {where}, {printable(inner.name)}; wanted two or more: {what_would_do}"
        )
    earlier: dict[str, str] = {}
    for own in found.values():
        _check_apart(earlier, own, "an image belongs to one class")
        earlier |= own
    return found


def _holds_data_set(folder: Path) -> bool:
    """Whether it has folders of classes in `train`, next to `val` or `test`."""
    parts = [folder / name for name in ("train", "val", "test") if (folder / name).is_dir()]
    return len(parts) > 1 and parts[0].name == "train" and bool(folders(parts[0]))


def check_parts_apart(train: ByRealPath, other: ByRealPath) -> None:
    """Check that no image is trained on and validated or tested on.

    Raises:
        ValueError: one is, by a link.
    """
    ours, theirs = (
        {real: file for files in part.values() for real, file in files.items()} for part in (train, other)
    )
    _check_apart(ours, theirs, _ONE_PART)


def without_hard_links(parts: dict[str, OfClass], pairs: Sequence[tuple[str, str]]) -> dict[str, OfClass]:
    """The images of the parts, without further hard links to an image of the same class.

    Raises:
        ValueError: two classes share an image so, or training and evaluation do.
    """
    if not pairs:
        return parts
    named = {file for pair in pairs for file in pair}
    home = {
        file: (part, name)
        for part, found in parts.items()
        for name, files in found.items()
        for file in named.intersection(files)
    }
    for why, apart in (
        ("an image belongs to one class", lambda one, other: one[0] == other[0] and one[1] != other[1]),
        (_ONE_PART, lambda one, other: (one[0] == "train") != (other[0] == "train")),
    ):
        _check_none([pair for pair in pairs if apart(home[pair[0]], home[pair[1]])], why)
    again = {other for one, other in pairs if home[one] == home[other]}
    return {
        part: {name: [file for file in files if file not in again] for name, files in found.items()}
        for part, found in parts.items()
    }


def _check_apart(ours: dict[str, str], theirs: dict[str, str], why: str) -> None:
    _check_none([(ours[real], theirs[real]) for real in sorted(theirs.keys() & ours.keys())], why)


def _check_none(shared: Sequence[tuple[str, str]], why: str) -> None:
    if shared:
        one, other = map(printable, shared[0])
        more = f", and {len(shared) - 1} more are such pairs" if shared[1:] else ""
        raise ValueError(f"{one} and {other} are one file by a link{more}; {why}: remove one of the two")
