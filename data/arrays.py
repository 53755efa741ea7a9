"""Images as arrays of any channels: .npy files, TIFFs of several bands, or by your own loader."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.data.datasets import LabelledDataset
from fulgurite.data.decoding import UnreadableImageError
from fulgurite.data.grey_range import LOOKED_AT, white_from
from fulgurite.data.image_files import printable
from fulgurite.data.samplers import seeded_by

ARRAYS = (".npy", ".tif", ".tiff")
"""Suffixes of files of arrays; with a loader, files of any name are read."""
MOST_CHANNELS = 13
"""As many as Sentinel-2 has bands."""
LARGEST = 178_956_970
"""The most values in a file: as many as the pixels that Pillow considers safe."""
Loader = Callable[[Path], Any]
"""From a file to its array: [h, w], [h, w, channels] or [channels, h, w], of NumPy or torch."""


@dataclass(frozen=True)
class ArrayReader:
    """Reads files as images in [0, 1] of this many channels.

    Whole numbers of 8 bits are divided by 255, of more by `white`, or by the largest value of their type;
    floating point is in [0, 1] already, or is divided by `white`.
    """

    channels: int
    white: int | None = None
    loader: Loader | None = None

    def __call__(self, file: Path) -> Float[Tensor, "c h w"]:
        """The image in a file.

        Raises:
            UnreadableImageError: it cannot be read, has other channels, or values outside [0, `white`].
        """
        try:
            values = self.values(file)
            top = self._top(values)
            low, high = float(values.min()), float(values.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError("it has values that are NaN or infinite")
            if low < 0 or high > top:
                raise ValueError(
                    f"its values go from {low:g} to {high:g}; wanted 0 to {top:g}, so scale them first, or "
                    "give white=, or --white in the shell"
                )
            return torch.from_numpy(np.ascontiguousarray(values / np.float32(top), np.float32))
        # loaders and parsers of broken files raise anything
        except Exception as error:
            elsewhere = isinstance(error, MemoryError) or (isinstance(error, OSError) and bool(error.errno))
            reason = printable(" ".join(str(error).split())) or type(error).__name__
            raise UnreadableImageError(file, reason, lasting=not elsewhere) from error

    def values(self, file: Path) -> np.ndarray:
        """The array in a file, channels first, not scaled.

        Raises:
            ValueError: it has other dimensions or channels, or no plain numbers.
        """
        read = _read if self.loader is None else self.loader
        found = read(file)
        values = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found)
        if values.dtype == bool or not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
            raise ValueError(f"it holds {values.dtype}; wanted plain numbers")
        if values.ndim == 2:
            values = values[None]
        if values.ndim != 3 or self.channels not in (values.shape[0], values.shape[-1]) or 0 in values.shape:
            raise ValueError(
                f"it holds an array of {' x '.join(map(str, values.shape))}; wanted height x width x "
                f"{self.channels} channels, or the channels first"
            )
        return np.moveaxis(values, -1, 0) if values.shape[-1] == self.channels else values

    def _top(self, values: np.ndarray) -> float:
        if values.dtype == np.uint8:
            return 255
        if self.white is not None:
            return self.white
        return float(np.iinfo(values.dtype).max) if np.issubdtype(values.dtype, np.integer) else 1


def white_of_arrays(files: Sequence[str], reader: ArrayReader) -> int | None:
    """The largest value of the smallest bit depth that fits some of the files, as for 16-bit grey.

    None where none of them holds whole numbers of more than 8 bits.
    """
    largest = -1
    for file in _some(files):
        try:
            values = reader.values(Path(file))
        except Exception:  # reported when it is loaded
            continue
        if np.issubdtype(values.dtype, np.integer) and values.dtype != np.uint8:
            largest = max(largest, int(values.max()))
    return white_from(largest)


def check_some_read(files: Sequence[str], reader: ArrayReader) -> None:
    """Check that at least one of some of the files can be read, so that not all have other channels.

    Raises:
        ValueError: none can, with the reason for the first of them.
    """
    refused = list[tuple[Path, Exception]]()
    for file in map(Path, _some(files)):
        try:
            reader.values(file)
            return
        except Exception as error:  # a loader may raise anything
            refused.append((file, error))
    if refused:
        file, error = refused[0]
        reason = printable(" ".join(str(error).split())) or type(error).__name__
        raise ValueError(
            f"channels={reader.channels}, but of {len(refused)} files that were tried none can be read so; "
            f"{printable(file)}: {reason}"
        ) from error


def _some(files: Sequence[str]) -> Iterator[str]:
    """A few of them, evenly spread."""
    count = min(LOOKED_AT, len(files))
    return (files[place * len(files) // count] for place in range(count))


class ArraysOnDisk(LabelledDataset):
    """Arrays read one by one: `read(index)` gives one, `frame` makes it square."""

    def __init__(
        self,
        read: Callable[[int], Tensor],
        labels: Int[Tensor, "n"],
        classes: tuple[str, ...],
        *,
        frame: Callable[[Any], Tensor],
    ):
        self.read, self.labels, self.classes, self.frame = read, labels, classes, frame

    def __getitem__(self, index: SupportsIndex) -> tuple[Float[Tensor, "c h w"], int]:
        image = self.read(int(index))
        with seeded_by(index):
            return self.frame(image).clamp(0, 1), int(self.labels[int(index)])


def _read(file: Path) -> np.ndarray:
    if not file.is_file():
        raise ValueError("it is not a regular file")
    if file.suffix.lower() == ".npy":
        lazy = np.load(file, mmap_mode="r", allow_pickle=False)
        _check_size(lazy.size)
        return np.array(lazy)
    import tifffile  # which scikit-image brings along

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with tifffile.TiffFile(file) as tiff:
            _check_size(int(np.prod(tiff.series[0].shape)))
            return tiff.series[0].asarray()


def _check_size(values: int) -> None:
    if values > LARGEST:
        raise ValueError(f"it holds {values} values; wanted at most {LARGEST}")
