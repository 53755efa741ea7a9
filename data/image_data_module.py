"""ImageData: the base class of data modules, with loaders for training, validation and test."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from fulgurite.data.datasets import InMemory, LabelledDataset
from fulgurite.data.samplers import EpochSampler, EvaluationSampler, LateLoader
from fulgurite.data.splits import inverse_frequency

LARGEST_SIDE = 4096
"""The largest side, in pixels: a batch of larger images fits into no memory."""
LARGEST_ON_GPU = 2 * 2**30
"""Bytes of training images that are kept on a GPU: CIFAR-10's are 150 MB."""


class ImageData(LightningDataModule, ABC):
    """Labelled images in three parts.

    A source states `classes`, `channels`, `size`, `mean` and `std` when it is made, so that a network can be
    built for it, and gives its `parts` on request; the rest is here. Where a source has no test
    images of its own, `test` is `val`.

    The order of the training images and their augmentation depend only on `seed` and the epoch, so that a
    resumed run continues as if never interrupted. Lightning sets the epoch; in a plain loop over the loader,
    each full pass is the next epoch.
    """

    classes: tuple[str, ...]
    channels: int
    size: int
    """Side of the square images, in pixels."""
    mean: tuple[float, ...]
    """Per channel, for the network's normalisation; the images themselves stay in [0, 1]."""
    std: tuple[float, ...]
    framing: ClassVar[str] = "whole"
    """The crop of the validation images: a name in `crops.FRAMINGS`."""
    mixing: tuple[str, ...] = ()
    """How a `Classifier` mixes the training images of a batch: by "mixup", "cutmix", or one of both."""

    train: LabelledDataset
    val: LabelledDataset
    test: LabelledDataset

    def __init__(self, *, batch_size: int = 64, workers: int = 0, seed: int = 0):
        if batch_size < 1:
            raise ValueError(f"batch_size is the number of images in a batch, at least 1; got {batch_size}")
        if workers < 0:
            raise ValueError(f"workers is the number of loading processes, 0 for none; got {workers}")
        super().__init__()
        self.batch_size = batch_size
        self.workers = workers
        self.seed = seed

    @abstractmethod
    def parts(self) -> tuple[LabelledDataset, LabelledDataset, LabelledDataset]:
        """The images to train on, to validate on, and to test on."""

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002
        """Sets `train`, `val` and `test`, whatever the stage; a second call changes nothing."""
        if not hasattr(self, "train"):
            self.train, self.val, self.test = self.parts()

    @property
    def tested_on(self) -> str:
        """The part that a test uses: "test" images, or "validation" images where there are no others."""
        self.setup()
        return "validation" if self.test is self.val else "test"

    @property
    def class_weights(self) -> Float[Tensor, "k"]:
        """Weights that balance the classes in a loss: inverse to their training images, 1 on average."""
        self.setup()
        return inverse_frequency(self.train.labels, self.classes)

    def train_dataloader(self) -> DataLoader:
        """The training images, shuffled; the last batch never has a single image."""
        ranks = self.trainer.world_size if self.trainer else 1
        share = math.ceil(len(self.train) / ranks)
        # BatchNorm cannot train on one image whose feature maps have shrunk to 1 x 1
        single = share > self.batch_size and share % self.batch_size == 1
        rank = self.trainer.global_rank if self.trainer else 0
        sampler = EpochSampler(self.train, seed=self.seed, ranks=ranks, rank=rank)
        return self._loader(self._on_device(self.train), sampler=sampler, drop_last=single)

    def _on_device(self, part: LabelledDataset) -> LabelledDataset:
        """Move training images that are in memory to the GPU, if there is one with enough memory."""
        device = getattr(getattr(self.trainer, "strategy", None), "root_device", torch.device("cpu"))
        if device.type != "cuda" or not isinstance(part, InMemory):
            return part
        free, _ = torch.cuda.mem_get_info(device)
        return part.on(device) if part.nbytes <= min(LARGEST_ON_GPU, free // 4) else part

    def val_dataloader(self) -> DataLoader:
        """The validation images, in order."""
        return self._evaluation_loader(self.val)

    def test_dataloader(self) -> DataLoader:
        """The test images, in order."""
        return self._evaluation_loader(self.test)

    def _evaluation_loader(self, part: LabelledDataset) -> DataLoader:
        if self.trainer is None or self.trainer.world_size == 1:
            return self._loader(part)
        sampler = EvaluationSampler(part, ranks=self.trainer.world_size, rank=self.trainer.global_rank)
        return self._loader(part, sampler=sampler)

    def _loader(
        self,
        part: LabelledDataset,
        *,
        sampler: EpochSampler | EvaluationSampler | None = None,
        drop_last: bool = False,
    ) -> DataLoader:
        kind = LateLoader if isinstance(sampler, EpochSampler) else DataLoader
        on_gpu = isinstance(part, InMemory) and part.images.device.type == "cuda"
        workers = 0 if on_gpu else self.workers
        return kind(
            part,
            self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            collate_fn=part.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available() and not on_gpu,
        )


def check_side(size: int, *, largest: int = LARGEST_SIDE) -> None:
    """Check that images can have this side.

    Raises:
        ValueError: they cannot.
    """
    if not 1 <= size <= largest:
        raise ValueError(f"size is the side of an image in pixels, from 1 to {largest}; got {size}")


def usual_statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of photographs: ImageNet's for three channels, round numbers for others."""
    if channels == 3:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return (0.5,) * channels, (0.25,) * channels
