"""Features cached on disk, written atomically and memory-mapped."""

import json
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Pass = tuple[Mapping[str, Tensor], Tensor]
"""Features of a batch, by layer, and its labels."""


def load_cached(folder: Path, key: str) -> Pass | None:
    """The features of this key and their labels, mapped into memory; None if they are incomplete."""
    place = folder / key
    if not (place / "layers.json").is_file():
        return None
    index = json.loads((place / "layers.json").read_text())
    files = {name: place / name for name in index["bytes"]}
    if {name: file.stat().st_size for name, file in files.items() if file.is_file()} != index["bytes"]:
        return None
    layers = {layer: _mapped(place / f"{number}.npy") for number, layer in enumerate(index["layers"])}
    return layers, _mapped(place / "labels.npy")


def write_cached(folder: Path, key: str, passes: Iterator[Pass]) -> Pass:
    """Writes features batch by batch, and returns them mapped into memory.

    Nothing is stored under the key until everything is written; an interruption leaves nothing.

    Raises:
        ValueError: there are none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{key}.", suffix=".draft", dir=folder))
    try:
        layers = _write_arrays(draft, passes)
        sizes = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
        (draft / "layers.json").write_text(json.dumps({"layers": layers, "bytes": sizes}))
        draft.chmod(0o755)  # only this process uses a draft
        if load_cached(folder, key) is None:  # another process may have been quicker
            shutil.rmtree(folder / key, ignore_errors=True)
            draft.rename(folder / key)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    found = load_cached(folder, key)
    assert found is not None
    return found


def gathered(passes: Iterator[Pass], *, most: int) -> Pass:
    """Features in memory up to this many bytes; more are written to a temporary file and mapped into memory.

    The file is deleted when the features are no longer used.

    Raises:
        ValueError: there are none.
    """
    held, size = deque[Pass](), 0
    for one in passes:
        held.append(one)
        size += sum(values.numel() * values.element_size() for values in one[0].values())
        if size > most:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                # processes that have mapped them keep them when the folder is deleted
                return write_cached(Path(folder), "features", chain(_emptied(held), passes))
    if not held:
        raise ValueError("no images to take features of; wanted at least one batch")
    every = {name: torch.cat([outputs[name] for outputs, _ in held]) for name in held[0][0]}
    return every, torch.cat([labels for _, labels in held])


def _emptied(held: deque[Pass]) -> Iterator[Pass]:
    while held:
        yield held.popleft()


def drop_cached(folder: Path, key: str) -> None:
    """Remove the features of this key; processes that have mapped them keep them."""
    shutil.rmtree(folder / key, ignore_errors=True)


def _mapped(path: Path) -> Tensor:
    # copy on write: torch wants memory that may be written to, and the file must stay as it is
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _write_arrays(draft: Path, passes: Iterator[Pass]) -> list[str]:
    """The layers, each now a file named by its number; labels are another file."""
    files = dict[str, _Growing]()
    layers = list[str]()
    try:
        for outputs, labels in passes:
            layers = layers or list(outputs)
            arrays = {str(number): outputs[layer] for number, layer in enumerate(layers)} | {"labels": labels}
            for name, values in arrays.items():
                if name not in files:
                    files[name] = _Growing(draft / f"{name}.npy", values[:0].numpy())
                files[name].add(values.numpy())
    finally:
        for file in files.values():
            file.close()
    if not files:
        raise ValueError("no images to take features of; wanted at least one batch")
    return layers


class _Growing:
    """An .npy file that rows are added to; its head, in which numpy leaves room, is written twice."""

    def __init__(self, path: Path, none: np.ndarray):
        self.none, self.rows, self.file = none, 0, path.open("w+b")
        self._head()

    def add(self, values: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(values).data)
        self.rows += len(values)

    def close(self) -> None:
        self.file.seek(0)
        self._head()
        self.file.close()

    def _head(self) -> None:
        kind = np.lib.format.dtype_to_descr(self.none.dtype)
        shape = (self.rows, *self.none.shape[1:])
        np.lib.format.write_array_header_1_0(
            self.file, {"descr": kind, "fortran_order": False, "shape": shape}
        )
