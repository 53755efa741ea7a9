"""A folder per class: finding the images, and finding out what is wrong with them."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

ENDINGS = (*IMG_EXTENSIONS, ".gif")


def folders(path: Path) -> list[Path]:
    """The folders in `path`, links to folders too, in order of name; hidden ones and macOS's left out."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not _hidden(entry.name))


def images(path: Path) -> list[Path]:
    """The images in `path` and below, in order."""
    return sorted(
        Path(place, name)
        for place, _, names in os.walk(path, followlinks=True)
        for name in names
        if name.lower().endswith(ENDINGS) and not any(map(_hidden, Path(place, name).relative_to(path).parts))
    )


def images_by_class(path: Path) -> dict[str, list[Path]]:
    """The images of each folder in `path`; ValueError unless there are two classes and none is empty."""
    found = {folder.name: images(folder) for folder in folders(path)}
    if not found:
        what = "loose images but no class folders" if images(path) else "no class folders"
        raise ValueError(f"{path} has {what}; wanted one folder per class, {path}/<class>/<image>.jpg")
    if not any(found.values()):
        raise ValueError(f"no images in any folder of {path}; images end in {' '.join(ENDINGS)}")
    if empty := [str(path / name) for name, files in found.items() if not files]:
        raise ValueError(f"no images in {', '.join(empty)}; add some, or remove the folder")
    if len(found) == 1:
        inner = path / next(iter(found))
        what_would_do = f"was {inner} meant?" if len(folders(inner)) > 1 else "add a second"
        raise ValueError(f"only one class in {path}, {inner.name}; wanted two or more: {what_would_do}")
    return found


def check_readable(files: list[Path]) -> None:
    """Decodes every image once; ValueError that names the first few of those that cannot be."""
    files = sorted(files)
    with ThreadPoolExecutor() as pool:
        complaints = tqdm(pool.map(_complaint, files), "Reading", len(files), unit=" images", delay=2)
        bad = [
            f"{file} ({complaint})" for file, complaint in zip(files, complaints, strict=True) if complaint
        ]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ValueError(
            f"{len(bad)} of {len(files)} images cannot be read; mend or remove {', '.join(bad[:5])}{more}"
        )


def _complaint(file: Path) -> str | None:
    try:
        with Image.open(file) as image:
            # a JPEG is read to its end, yet only an eighth of each side computed
            image.draft("L", (1, 1))
            image.load()
    # broken files make decoders raise anything: OSError, SyntaxError, struct.error, zlib.error ...
    except Exception as error:
        return " ".join(str(error).replace(f" {str(file)!r}", "").split()) or type(error).__name__
    return None


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))
