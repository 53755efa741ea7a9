"""Your own images in one folder per class, as for torchvision's ImageFolder."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor

from fulgurite.data.arrays import (
    ARRAYS,
    MOST_CHANNELS,
    ArrayReader,
    ArraysOnDisk,
    Loader,
    check_some_read,
    white_of_arrays,
)
from fulgurite.data.augmentation_presets import MIXING, PRESETS, preset
from fulgurite.data.class_folders import (
    ByRealPath,
    OfClass,
    check_parts_apart,
    folders,
    images_by_class,
    without_hard_links,
)
from fulgurite.data.crops import from_the_middle
from fulgurite.data.datasets import LabelledDataset, OnDisk
from fulgurite.data.decoded_cache import DecodedCache
from fulgurite.data.grey_range import white_of
from fulgurite.data.image_data_module import ImageData, check_side, usual_statistics
from fulgurite.data.image_files import ENDINGS, printable
from fulgurite.data.manifest import Manifest
from fulgurite.data.readable_images import OnBadImage, ReadableImages, name_bad_images, way_with_bad_images
from fulgurite.data.splits import few, folded, set_aside


class Folder(ImageData):
    """Images under `path/train/<class>` and `path/val/<class>` (and `path/test`), or under `path/<class>`.

    Without `path/val`, a `val_share` of each class is set aside by `seed`; `path/train` alone, without
    `path/val` and `path/test`, is refused. Without `path/test`, `test` is `val`, and its metrics are called
    validation. With `fold=(number, folds)`, all images but those of `path/test` are split into folds by
    `seed`, and that one, from 0, is for validation. With `per_class`, no more images of each class than that
    are trained on; with the same seed, a larger number includes the smaller one.

    Images of any mode become grey (`channels=1`) or colour (3). With 2 or 4 to 13 channels they are arrays,
    of `.npy` files or TIFFs of several bands; with a `loader`, what it returns for a file of any name: an
    array [h, w], [h, w, channels] or [channels, h, w], see `ArrayReader`. Whole numbers of more than 8 bits
    are scaled from 0 to `white`; without it, to the largest value of the 10, 12, 14 or 16 bits that the
    pixels of some of the files take, which is reported. `augment` names how training images are changed
    (`data/augmentation_presets.py`); True is "standard", which frames them at random and mirrors. `mean` and
    `std` are ImageNet's for colour, 0.5 and 0.25 for others.

    Folders are listed at once, and a ValueError names the one at fault. Of each image that is new or has
    changed, the first and last bytes are checked, and the `Manifest` in the user's cache folder keeps the
    results; of several hard links to one file, the first counts; `verify=False` skips these checks. Files
    without an image suffix are skipped, and their number is reported. Unreadable images are named, here or in
    the step that reads them. With `on_bad_image="skip"`, the next readable image of its class replaces each;
    "raise" ends the run.

    With `decoded`, images are kept as pixels in the user's cache folder once they are decoded, and read by
    memory mapping from then on, see `DecodedCache`: with 0 in full size, which gives the same training
    images; with a number of pixels, with their shorter side reduced to it, which takes less space on the
    disk.
    """

    framing = "middle"

    def __init__(
        self,
        path: str | Path,
        *,
        size: int = 224,
        val_share: float = 0.2,
        fold: tuple[int, int] | None = None,
        per_class: int | None = None,
        channels: int = 3,
        augment: bool | str = True,
        verify: bool = True,
        on_bad_image: str = "skip",
        white: int | None = None,
        loader: Loader | None = None,
        decoded: int | None = None,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size=batch_size, workers=workers, seed=seed)
        check_side(size)
        if not 1 <= channels <= MOST_CHANNELS:
            raise ValueError(
                f"channels is 1 for grey, 3 for colour, or up to {MOST_CHANNELS} of arrays; got {channels}"
            )
        self.reader = None if loader is None and channels in (1, 3) else ArrayReader(channels, white, loader)
        if not 0 < val_share < 1:
            raise ValueError(f"val_share is between 0 and 1, both excluded; got {val_share}")
        self.channels = channels
        self.size = size
        self.on_bad_image: OnBadImage = way_with_bad_images(on_bad_image)
        if white is not None and not 1 <= white <= 65535:
            raise ValueError(f"white is the value of white pixels, from 1 to 65535; got {white}")
        self.mean, self.std = usual_statistics(channels)
        self.augment = preset(augment)
        self.mixing = MIXING.get(self.augment, ())
        if self.reader and self.augment in ("colour", "strong"):
            raise ValueError(
                f'augment={augment!r} changes colours; arrays take "none", "light" or "standard"'
            )
        endings = ENDINGS if self.reader is None else ARRAYS if loader is None else ("",)
        path = Path(path).expanduser()
        others = Counter[str]()
        self._files = _found(path, others, endings)
        if others and verify:
            rank_zero_info(
                f"passed over in {printable(path)}: {_in_words(others)}; images end in {' '.join(endings)}"
            )
        self._manifest = Manifest(path)
        self._bad = self._manifest.check(_every(self._files)) if verify and self.reader is None else {}
        self._files = without_hard_links(self._files, self._manifest.hard_links)
        self.white = white if white is not None else _announced(self._white())
        if self.reader:
            self.reader = replace(self.reader, white=self.white)
        self._decoded: DecodedCache | None = None
        if decoded is not None:
            if self.reader:
                raise ValueError(f"decoded={decoded} is for images; arrays are read as they are")
            if 0 < decoded < size:
                raise ValueError(
                    f"decoded={decoded} is less than size={size}; wanted as much, or 0 for whole images"
                )
            how = f"channels={channels} white={self.white}"
            self._decoded = DecodedCache(path, how=how, side=decoded)
        if self.reader:
            check_some_read(_every(self._files), self.reader)
        self.classes = tuple(self._files["train"])
        if fold is not None:
            self._files |= _in_folds(self._files, fold=fold, seed=seed)
        elif "val" not in self._files:
            self._files |= _divided(self._files["train"], share=val_share, seed=seed)
        if per_class is not None:
            train = self._files["train"]
            self._files["train"] = _chosen(
                train, few(_labels(train), self.classes, per_class=per_class, seed=seed)
            )
        name_bad_images(self._files, self._bad, self.on_bad_image)

    @property
    def files(self) -> dict[str, dict[str, list[Path]]]:
        """The images of each part, by class."""
        return {
            part: {name: list(map(Path, files)) for name, files in found.items()}
            for part, found in self._files.items()
        }

    def parts(self) -> tuple[LabelledDataset, LabelledDataset, LabelledDataset]:
        """Each decodes its images on request; only the first frames them at random."""
        middle = from_the_middle(self.size)
        train = self._part("train", PRESETS[self.augment](self.size))
        val = self._part("val", middle)
        return train, val, self._part("test", middle) if "test" in self._files else val

    def _white(self) -> int | None:
        files = _every(self._files)
        return white_of(files) if self.reader is None else white_of_arrays(files, self.reader)

    def _part(self, name: str, frame: Callable[[Image.Image], Tensor]) -> OnDisk | ArraysOnDisk:
        picture = ReadableImages(
            self._files[name],
            channels=self.channels,
            bad=self._bad,
            on_bad_image=self.on_bad_image,
            manifest=self._manifest,
            white=self.white,
            read=self.reader,
            decoded=self._decoded,
        )
        labels = _labels(self._files[name])
        if self.reader:
            return ArraysOnDisk(picture, labels, self.classes, frame=frame)
        return OnDisk(picture, labels, self.classes, channels=self.channels, frame=frame)


def _found(path: Path, others: Counter[str], endings: tuple[str, ...]) -> dict[str, OfClass]:
    where = printable(path)
    if path.is_file():
        raise ValueError(f"{where} is a file, wanted a folder; if it is an archive, unpack it first")
    if not path.is_dir():
        raise ValueError(f"there is no folder {where}; wanted one folder per class in it")
    if not ((path / "train").is_dir() and (path / "val").is_dir()):
        if not ((path / "train").is_dir() and folders(path / "train")):
            return {"train": _listed(images_by_class(path, others, endings))}
        if not ((path / "test").is_dir() and folders(path / "test")):
            raise ValueError(
                f"{where} has train but no val; add {where}/val, or give {where}/train to be divided"
            )
    parts = [name for name in ("train", "val", "test") if (path / name).is_dir()]
    found = {name: images_by_class(path / name, others, endings) for name in parts}
    for name in parts[1:]:
        if odd := sorted(found["train"].keys() ^ found[name].keys()):
            only = [f"{one} (only in {'train' if one in found['train'] else name})" for one in odd]
            raise ValueError(
                f"{where}/train and {where}/{name} should have the same classes; "
                f"not in both: {', '.join(only)}"
            )
        check_parts_apart(found["train"], found[name])
    return {name: _listed(part) for name, part in found.items()}


def _in_words(others: Counter[str]) -> str:
    files = f"{others.total()} file{'s' * (others.total() > 1)}"
    return f"{files} ({', '.join(f'{count} {ending}' for ending, count in others.most_common(5))})"


def _listed(found: ByRealPath) -> OfClass:
    return {name: list(files.values()) for name, files in found.items()}


def _divided(found: OfClass, *, share: float, seed: int) -> dict[str, OfClass]:
    if single := [printable(Path(files[0]).parent) for files in found.values() if len(files) == 1]:
        raise ValueError(
            f"too few images to divide: 1 in {', '.join(single)}; "
            "each class needs two, one to train on and one to validate on"
        )
    train, val = set_aside(_labels(found), share=share, seed=seed)
    return {"train": _chosen(found, train), "val": _chosen(found, val)}


def _in_folds(found: dict[str, OfClass], *, fold: tuple[int, int], seed: int) -> dict[str, OfClass]:
    whole = {name: files + found.get("val", {}).get(name, []) for name, files in found["train"].items()}
    train, val = folded(_labels(whole), tuple(whole), fold=fold, seed=seed)
    return {"train": _chosen(whole, train), "val": _chosen(whole, val)}


def _labels(found: OfClass) -> Int[Tensor, "n"]:
    counts = torch.tensor([len(files) for files in found.values()])
    return torch.arange(len(found)).repeat_interleave(counts)


def _chosen(found: OfClass, indices: Int[Tensor, "m"]) -> OfClass:
    """The files at these positions, in order."""
    every = [file for files in found.values() for file in files]
    ends = torch.tensor([len(files) for files in found.values()]).cumsum(0)
    own = indices.tensor_split(torch.searchsorted(indices, ends)[:-1])
    return {name: [every[index] for index in few.tolist()] for name, few in zip(found, own, strict=True)}


def _announced(white: int | None) -> int | None:
    """The value that is white; reported where it is not that of 16 bits."""
    if white is not None and white < 65535:
        rank_zero_info(
            f"images of 16 bits hold {(white + 1).bit_length() - 1} of them: {white} is white; if it is "
            "not, give white=, or --white in the shell"
        )
    return white


def _every(parts: dict[str, OfClass]) -> list[str]:
    return [file for part in parts.values() for files in part.values() for file in files]
