"""Any torchvision classification data set by name."""

from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor
from torchvision import datasets

from fulgurite.data.augmentation_presets import MIXING, PRESETS, batch_preset, preset
from fulgurite.data.crops import from_the_middle
from fulgurite.data.datasets import InMemory, LabelledDataset, OnDisk
from fulgurite.data.image_data_module import ImageData, check_side, usual_statistics
from fulgurite.data.splits import set_aside
from fulgurite.data.torchvision_facts import FACTS, HANDED, PARTS, Facts


class TorchvisionSet(ImageData):
    """A set such as `"CIFAR10"`, downloaded to `root` by the trainer unless it is there.

    A tenth of every class is set aside from the training images to validate on; where torchvision has no
    separate test images, `test` is `val`. Without `download`, missing files are a ValueError. `size` resizes;
    without it images keep their own, or 224 where theirs differ. `augment` names one of the presets, true is
    "standard" and false "none"; nothing is mirrored where a mirror image means something else. EMNIST is its
    balanced split, set upright.

    The facts of the most common sets are built in; any other is opened at once, and downloaded if needed, for
    its classes.
    """

    def __init__(
        self,
        name: str,
        *,
        root: str | Path = "datasets",
        download: bool = True,
        size: int | None = None,
        augment: bool | str = True,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(batch_size=batch_size, workers=workers, seed=seed)
        if name not in PARTS:
            spelt = {known.lower(): known for known in PARTS}
            near = [spelt[known] for known in get_close_matches(name.lower(), spelt, cutoff=0.5)] or PARTS
            raise ValueError(
                f"no set {name!r} among torchvision's for classification; nearest: {', '.join(near)}"
            )
        if size is not None:
            check_side(size)
        self.name = name
        self.root = Path(root).expanduser()
        self.download = download
        self.augment = preset(augment)
        self.mixing = MIXING.get(self.augment, ())
        self._kind = getattr(datasets, name)
        self._train_split, self._test_split = PARTS[name]
        facts = FACTS.get(name) or _facts(self._fetched(self._train_split))
        self.channels, own_size, self.mean, self.std, self.classes = facts
        self.size = size or own_size

    def prepare_data(self) -> None:
        """Downloads what `root` lacks."""
        self._fetched(self._train_split)
        if self._test_split is not None:
            self._fetched(self._test_split)

    def parts(self) -> tuple[LabelledDataset, LabelledDataset, LabelledDataset]:
        """Sets that torchvision holds as one array stay in memory, as bytes; others are decoded."""
        pictures = self._opened(self._train_split)
        kept, aside = set_aside(_labels(pictures), share=0.1, seed=self.seed)
        train = self._part(pictures, kept, augment=self.augment)
        val = self._part(pictures, aside)
        return train, val, val if self._test_split is None else self._part(self._opened(self._test_split))

    def _part(
        self, pictures: Any, chosen: Int[Tensor, "n"] | None = None, *, augment: str = "none"
    ) -> LabelledDataset:
        labels = _labels(pictures)
        if chosen is None:
            chosen = torch.arange(len(labels))
        mirror = self.name not in HANDED
        if (images := _array(pictures)) is not None:
            change = batch_preset(augment, self.size, mirror=mirror)
            return InMemory(images[chosen], labels[chosen], self.classes, size=self.size, augment=change)
        frame = from_the_middle(self.size, margin=1)
        if augment != "none":
            frame = PRESETS[augment](self.size, mirror=mirror)
        picture = partial(_picture, pictures, chosen.tolist())
        return OnDisk(picture, labels[chosen], self.classes, channels=self.channels, frame=frame)

    def _opened(self, options: dict[str, Any]) -> Any:
        try:
            return self._open(options, download=False)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{self.name} is not in {self.root}; call prepare_data() first, or put it under {self._home}"
            ) from error

    def _fetched(self, options: dict[str, Any]) -> Any:
        if not self.download:
            return self._opened(options)
        with suppress(ValueError):
            return self._opened(options)
        try:
            return self._open(options, download=True)
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise ValueError(
                f"{self.name} could not be downloaded ({' '.join(str(error).split())}); "
                f"put its files where torchvision looks for them, under {self._home}"
            ) from error

    def _open(self, options: dict[str, Any], *, download: bool) -> Any:
        return self._kind(str(self.root), download=download, **options)

    @property
    def _home(self) -> Path:
        if issubclass(self._kind, datasets.MNIST):
            return self.root / self._kind.__name__ / "raw"
        return self.root / getattr(self._kind, "base_folder", "")


def _facts(pictures: Any) -> Facts:
    labels = _labels(pictures)
    names = getattr(pictures, "classes", None) or getattr(pictures, "categories", None) or ()
    classes = tuple(name if isinstance(name, str) else name[0] for name in names)
    classes = classes or tuple(str(label) for label in range(int(labels.max()) + 1))
    if (images := _array(pictures)) is not None:
        channels, size = images.shape[1], images.shape[-1]
    else:
        examples = [pictures[index][0] for index in range(0, len(pictures), -(-len(pictures) // 16))]
        channels = 1 if all(image.mode in ("1", "L") for image in examples) else 3
        sides = {side for image in examples for side in image.size}
        size = sides.pop() if len(sides) == 1 else 224
    return Facts(channels, size, *usual_statistics(channels), classes)


def _array(pictures: Any) -> UInt8[Tensor, "n c h w"] | None:
    if not isinstance(array := getattr(pictures, "data", None), np.ndarray | Tensor):
        return None
    images = torch.as_tensor(array)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    # EMNIST is stored column by column
    return images.mT if isinstance(pictures, datasets.EMNIST) else images


def _labels(pictures: Any) -> Int[Tensor, "n"]:
    # torchvision uses several names for them
    for attribute in ("targets", "labels", "_labels", "y"):
        if (labels := getattr(pictures, attribute, None)) is not None:
            labels = torch.as_tensor(labels).long()
            # QMNIST's first column of eight is the digit
            return labels[:, 0] if labels.ndim == 2 else labels
    return torch.tensor([label for _, label in pictures._samples])


def _picture(pictures: Any, chosen: list[int], index: int) -> Image.Image:
    return pictures[chosen[index]][0]
