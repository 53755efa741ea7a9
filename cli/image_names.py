"""Names of images in tables, on sheets and in folders: as short as tells them apart."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fulgurite.data.image_files import printable


def names_of(files: Sequence[Path]) -> list[str]:
    """Names without suffix; where these are not unique, paths without it, or else with it.

    Those without suffix are unique also as file names, where slashes become underscores.
    """
    stems = Counter(file.stem for file in files)
    paths = Counter(file_name(str(file.with_suffix(""))) for file in files)
    taken = {file_name(stem) for stem, count in stems.items() if count == 1}

    def name(file: Path) -> str | Path:
        if stems[file.stem] == 1:
            return file.stem
        bare = file.with_suffix("")
        own = file_name(str(bare))
        return bare if paths[own] == 1 and own not in taken else file

    return [printable(name(file)) for file in files]


def file_name(label: str) -> str:
    """A label as the name of a file: without slashes and spaces."""
    return label.replace("/", "_").replace(" ", "_")
