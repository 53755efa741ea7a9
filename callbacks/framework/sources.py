"""Where the samples of a trainer's probes come from; each image is fetched once for all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import lightning.pytorch as pl
import torch

from fulgurite.callbacks.framework.lazy_images import LoadedImages
from fulgurite.callbacks.framework.sample import (
    Sample,
    classes_of,
    loader_of,
    sample_of,
    training_loader_of,
)

ChannelValues = Sequence[float] | None


class Sources:
    """The validation and the training images of one trainer, with a cache of decoded ones.

    `max_images` is how many images the probes ask for at most; this many are read first, all with None.
    """

    def __init__(self) -> None:
        self.max_images: int | None = 1
        self.clear()

    def clear(self) -> None:
        """Forget them: data and network may change from now on."""
        self._loaded: dict[object, LoadedImages] = {}
        self._training: tuple[Iterable | None] | None = None
        self.reported = set[str]()  # what has been reported as not restorable

    def validation(
        self,
        trainer: pl.Trainer,
        count: int | None,
        *,
        classes: Sequence[str] | None,
        device: torch.device,
        mean: ChannelValues,
        std: ChannelValues,
    ) -> Sample:
        """This many validation images (test or training images, where there are no others).

        Raises:
            ValueError: there are none, or they cannot be looked at.
        """
        part, loader = loader_of(trainer)
        source = self._source("validation", loader, device, mean, std)
        source.at_least(self.max_images)
        names = classes or classes_of(trainer, loader)
        return replace(sample_of(source, count, classes=names, device=device), part=part)

    def training(
        self,
        trainer: pl.Trainer,
        count: int,
        *,
        device: torch.device,
        mean: ChannelValues,
        std: ChannelValues,
    ) -> Sample | None:
        """This many training images, as training sees them; None where there are no training data.

        Raises:
            ValueError: they cannot be looked at.
        """
        if self._training is None:
            self._training = (training_loader_of(trainer),)
        (loader,) = self._training
        if loader is None:
            return None
        source = self._source("training", loader, device, mean, std)
        return sample_of(source, count, classes=(), device=device)

    def _source(
        self, kind: str, loader: Iterable, device: torch.device, mean: ChannelValues, std: ChannelValues
    ) -> LoadedImages:
        key = (kind, tuple(mean or ()), tuple(std or ()))
        if key not in self._loaded:
            self._loaded[key] = LoadedImages(
                loader, device=device, mean=mean, std=std, reported=self.reported
            )
        return self._loaded[key]
