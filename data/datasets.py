"""Labelled image data sets: in memory, or decoded from files on request."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fulgurite.data.decoding import upright
from fulgurite.data.samplers import seeded_by


class LabelledDataset(Dataset, ABC):
    """Images in [0, 1], each with the number of its class."""

    labels: Int[Tensor, "n"]
    classes: tuple[str, ...]
    collate: Callable[[Any], Any] = staticmethod(default_collate)
    """What a DataLoader over this dataset needs as its `collate_fn`."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __getitem__(self, index: SupportsIndex) -> tuple[Float[Tensor, "c h w"], int]: ...


def as_it_is(batch: Any) -> Any:
    """Collates nothing: the dataset has made the batch."""
    return batch


class InMemory(LabelledDataset):
    """Images held as one tensor; a DataLoader gets each batch in one piece.

    Bytes become floats, and take on `size`, batch by batch; after that, grey is repeated over `channels`.
    `augment` sees whole batches, before that. Your own DataLoader needs `collate_fn=dataset.collate`.
    """

    collate = staticmethod(as_it_is)

    def __init__(
        self,
        images: Float[Tensor, "n c h w"] | UInt8[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
        classes: tuple[str, ...],
        *,
        size: int | None = None,
        channels: int | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ):
        self.images = images
        self.labels = labels
        self.classes = classes
        self.size = size or images.shape[-1]
        self.channels = channels or images.shape[1]
        self.augment = augment

    def on(self, device: torch.device) -> "InMemory":
        """The same data set on a device, where batches are also built and augmented."""
        there = copy.copy(self)
        there.images, there.labels = self.images.to(device), self.labels.to(device)
        return there

    @property
    def nbytes(self) -> int:
        """What the images take."""
        return self.images.nbytes

    def __getitem__(self, index: SupportsIndex) -> tuple[Float[Tensor, "c h w"], int]:
        images, labels = self.__getitems__([index])
        return images[0], int(labels[0])

    def __getitems__(
        self, indices: Sequence[SupportsIndex]
    ) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, "n"]]:
        chosen = torch.tensor([int(index) for index in indices])
        if (device := self.images.device).type == "cuda":  # or the copy would wait for the device
            chosen = chosen.pin_memory().to(device, non_blocking=True)
        images = self.images[chosen]
        if images.dtype == torch.uint8:
            images = images.float() / 255
        if images.shape[-1] != self.size:
            images = F.interpolate(images, size=self.size, mode="bilinear", antialias=True).clamp(0, 1)
        if self.augment:
            with seeded_by(indices[0], device):
                images = self.augment(images)
        if images.shape[1] != self.channels:
            images = images.repeat(1, self.channels, 1, 1)
        return images, self.labels[chosen]


def as_bytes(part: LabelledDataset, *, augment: Callable[[Tensor], Tensor] | None = None) -> InMemory:
    """The images of a data set without augmentation, decoded once and held as bytes."""
    batches = list(DataLoader(part, 256, collate_fn=part.collate))
    images = torch.cat([(images * 255).round().byte() for images, _ in batches])
    labels = torch.cat([torch.as_tensor(labels) for _, labels in batches])
    return InMemory(images, labels, part.classes, augment=augment)


class OnDisk(LabelledDataset):
    """Images decoded one by one: `picture(index)` opens one, `frame` makes a square tensor of it."""

    def __init__(
        self,
        picture: Callable[[int], Image.Image],
        labels: Int[Tensor, "n"],
        classes: tuple[str, ...],
        *,
        channels: int,
        frame: Callable[[Image.Image], Tensor],
    ):
        self.picture = picture
        self.labels = labels
        self.classes = classes
        self.channels = channels
        self.frame = frame

    def __getitem__(self, index: SupportsIndex) -> tuple[Float[Tensor, "c h w"], int]:
        label = int(self.labels[int(index)])
        with self.picture(int(index)) as image, seeded_by(index):
            return self.frame(upright(image, channels=self.channels)), label
