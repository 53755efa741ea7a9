"""Finding and checking image files in one folder per class."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from fulgurite.data.decoding import UnreadableImageError, opened, upright
from fulgurite.data.image_files import ENDINGS, hidden, images_below, printable, real_paths

OfClass = dict[str, list[Path]]


def folders(path: Path) -> list[Path]:
    """The folders in `path`, links to folders too, in order of name; hidden ones and macOS's left out."""
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not hidden(entry.name))
    except OSError as error:
        raise ValueError(f"the folder {printable(path)} cannot be listed: {error.strerror}") from None


def images_by_class(path: Path) -> OfClass:
    """The images of each folder in `path`, by its name, made printable.

    Raises:
        ValueError: there are not two classes, one is empty, or two share an image by a link.
    """
    found = {printable(folder.name): images_below(folder) for folder in folders(path)}
    where = printable(path)
    if not found:
        what = "loose images but no class folders" if images_below(path) else "no class folders"
        raise ValueError(f"{where} has {what}; wanted one folder per class, {where}/<class>/<image>.jpg")
    if not any(found.values()):
        raise ValueError(f"no images in any folder of {where}; images end in {' '.join(ENDINGS)}")
    if empty := [f"{where}/{name}" for name, files in found.items() if not files]:
        raise ValueError(f"no images in {', '.join(empty)}; add some, or remove the folder")
    if len(found) == 1:
        (inner,) = folders(path)
        what_would_do = f"was {printable(inner)} meant?" if len(folders(inner)) > 1 else "add a second"
        raise ValueError(
            f"only one class in {where}, {printable(inner.name)}; wanted two or more: {what_would_do}"
        )
    earlier: dict[str, Path] = {}
    for files in found.values():
        own = real_paths(files)
        _check_apart(earlier, own, "an image belongs to one class")
        earlier |= own
    return found


def check_parts_apart(train: OfClass, other: OfClass) -> None:
    """See that no image is trained on and validated or tested on.

    Raises:
        ValueError: one is, by a link.
    """
    ours, theirs = (real_paths(file for files in part.values() for file in files) for part in (train, other))
    _check_apart(ours, theirs, "an image is either for training or for evaluation")


def check_readable(files: list[Path]) -> None:
    """Decodes every image once; ValueError that names the first few of those that cannot be."""
    files = sorted(files)
    with ThreadPoolExecutor() as pool:
        complaints = tqdm(pool.map(_complaint, files), "Reading", len(files), unit=" images", delay=2)
        bad = [
            f"{printable(file)} ({complaint})"
            for file, complaint in zip(files, complaints, strict=True)
            if complaint
        ]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ValueError(
            f"{len(bad)} of {len(files)} images cannot be read; mend or remove {', '.join(bad[:5])}{more}"
        )


def _complaint(file: Path) -> str | None:
    try:
        with opened(file) as image:
            # a JPEG is read to its end, yet only an eighth of each side computed
            image.draft("L", (1, 1))
            upright(image, channels=1)
    except UnreadableImageError as error:
        return error.reason
    return None


def _check_apart(ours: dict[str, Path], theirs: dict[str, Path], why: str) -> None:
    if shared := [real for real in theirs if real in ours]:
        one, other = (printable(files[shared[0]]) for files in (ours, theirs))
        more = f", and {len(shared) - 1} more are such pairs" if shared[1:] else ""
        raise ValueError(f"{one} and {other} are one file by a link{more}; {why}: remove one of the two")
