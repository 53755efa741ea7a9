"""Image files by number, with bad ones replaced by the next readable image of their class."""

import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Literal, cast, get_args

from PIL import Image

from fulgurite.data.class_folders import OfClass
from fulgurite.data.decoded_cache import DecodedCache
from fulgurite.data.decoding import UnreadableImageError, read_image
from fulgurite.data.image_files import printable
from fulgurite.data.manifest import Manifest

OnBadImage = Literal["raise", "skip"]
NAMED = 5
"""Bad images that are named in one message."""


def way_with_bad_images(name: str) -> OnBadImage:
    """The name, if it is one of `OnBadImage`; ValueError otherwise."""
    if name not in get_args(OnBadImage):
        raise ValueError(
            f'on_bad_image is "skip", to train without images that cannot be read, or "raise"; got {name!r}'
        )
    return cast(OnBadImage, name)


def name_bad_images(parts: Mapping[str, OfClass], bad: Mapping[str, str], on_bad_image: OnBadImage) -> None:
    """Names the first few of the images that are known to be bad: in a warning, or in an error.

    Raises:
        ValueError: by `on_bad_image="raise"`, or as there are no others of a class.
    """
    every = [file for part in parts.values() for files in part.values() for file in files]
    if not (used := sorted(bad.keys() & set(every)) if bad else []):
        return
    bad = {file: bad[file] for file in used}
    count = len(every)
    some = [f"{printable(file)} ({reason})" for file, reason in list(bad.items())[:NAMED]]
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    what = f"{len(bad)} of {count} images cannot be read; mend or remove {', '.join(some)}{more}"
    if on_bad_image == "raise":
        raise ValueError(what)
    for part, classes in parts.items():
        for name, files in classes.items():
            if files and bad.keys() >= set(files):
                raise ValueError(f"{what}; no image of the class {name} is left in {part}")
    warnings.warn(f"{what}; others of their classes take their places", stacklevel=3)


class ReadableImages:
    """The images of a part by number; a bad one is replaced by the next readable one of its class.

    Which one that is depends only on the files: not on the manifest, on processes or on the order of reading.
    So labels, batches and their order do not change, and a resumed run ends as if never interrupted. Each bad
    image is named once, when it is read.

    Args:
        files: of each class; they are numbered class by class.
        channels: 1 for grey, 3 for colour.
        bad: the files that are known to be bad, and why.
        on_bad_image: "raise" lets the error through.
        manifest: records further bad images.
        white: see `upright`.
        read: reads a file instead, such as an `ArrayReader`; files that it cannot read are not recorded.
        decoded: a cache of decoded images.
    """

    def __init__(
        self,
        files: OfClass,
        *,
        channels: int,
        bad: Mapping[str, str],
        on_bad_image: OnBadImage,
        manifest: Manifest,
        white: int | None = None,
        read: Callable[[Path], Any] | None = None,
        decoded: DecodedCache | None = None,
    ):
        self.files = [file for own in files.values() for file in own]
        self.ends = list(accumulate(map(len, files.values())))
        self.classes = tuple(files)
        self.channels = channels
        self.bad = dict(bad)
        self.on_bad_image = on_bad_image
        self.manifest = manifest
        self.white = white
        self.read = read
        self.decoded = decoded

    def __call__(self, index: int) -> Any:
        """The image of this number, or its replacement.

        Raises:
            UnreadableImageError: it cannot be read, and `on_bad_image` is "raise".
            ValueError: no image of its class can be read.
        """
        if self.on_bad_image == "raise":
            return self._read(self.files[index])
        for place in self._own_class(index):
            if (file := self.files[place]) not in self.bad:
                try:
                    return self._read(file)
                except UnreadableImageError as error:
                    self.bad[file] = error.reason
                    warnings.warn(f"{error}; another image of its class takes its place", stacklevel=2)
        raise ValueError(f"no image of the class {self.classes[bisect_right(self.ends, index)]} can be read")

    def _read(self, file: str) -> Any:
        if self.read is not None:
            return self.read(Path(file))
        try:
            if self.decoded is None:
                return self._decode(file)
            return self.decoded.read(file, lambda: self._decode(file))
        except UnreadableImageError as error:
            self.manifest.note(error)
            raise

    def _decode(self, file: str) -> Image.Image:
        return read_image(Path(file), channels=self.channels, white=self.white)

    def _own_class(self, index: int) -> Iterator[int]:
        """The positions of its class, from its own on, cyclically."""
        label = bisect_right(self.ends, index)
        begin, end = self.ends[label - 1] if label else 0, self.ends[label]
        return chain(range(index, end), range(begin, index))
