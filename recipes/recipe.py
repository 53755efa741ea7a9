"""A recipe: model, data, epochs and probes; and the standard probes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl

from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.embeddings import Embeddings
from fulgurite.callbacks.filters import Filters
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.occlusion import Occlusion
from fulgurite.callbacks.saliency import Saliency
from fulgurite.data.image_data_module import ImageData
from fulgurite.models.classifier import Classifier

_FOLLOW = ContextVar("weights follow", default=False)
_DOWNLOAD = ContextVar("data may be downloaded", default=True)


@contextmanager
def weights_follow(follow: bool = True, *, download: bool = True) -> Iterator[None]:
    """Recipes that are built in this block get their weights from a checkpoint afterwards, if they do.

    So they need not download, train or fit any: no network is run, no file but the checkpoint is read.
    Without `download`, no data are written to a place that a run's folder names.
    """
    before = _FOLLOW.set(follow), _DOWNLOAD.set(download)
    try:
        yield
    finally:
        _FOLLOW.reset(before[0])
        _DOWNLOAD.reset(before[1])


def do_weights_follow() -> bool:
    """Whether what is built here gets its weights from a checkpoint afterwards."""
    return _FOLLOW.get()


def may_download() -> bool:
    """Whether data may be downloaded to any place that the knobs name."""
    return _DOWNLOAD.get()


@dataclass
class Recipe:
    """A model, its data, how long to train, and what to watch meanwhile.

    Args:
        model: what is trained.
        data: what it is trained on.
        epochs: passes over the training images.
        probes: what looks at it, also at a finished run.
        callbacks: what else takes part in training.
        monitor: what tells the best checkpoint, the larger the better.
        patience: epochs without a better one after which training stops; it does not without.
    """

    model: Classifier
    data: pl.LightningDataModule
    epochs: int
    probes: Sequence[ProbeCallback] = field(default_factory=list)
    callbacks: Sequence[pl.Callback] = field(default_factory=list)
    monitor: str = "val/accuracy"
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}; wanted at least 1")
        if self.patience is not None and self.patience < 1:
            raise ValueError(
                f"patience={self.patience}; wanted at least 1 epoch, or None never to stop early"
            )

    def takes(self) -> dict[str, Any]:
        """What images the network takes, and the classes that it tells; nothing if that is not known.

        `size`, `channels` and `framing` are the data's; `mean` and `std` are what the network normalises by.
        """
        own = self.model.network.state_dict()
        if not isinstance(self.data, ImageData) or "normalise.mean" not in own:
            return {}
        return {
            "classes": list(self.data.classes),
            **{name: getattr(self.data, name) for name in ("size", "channels", "framing")},
            **{name: own[f"normalise.{name}"].flatten().tolist() for name in ("mean", "std")},
        }


def standard_probes(
    *,
    every: int,
    budget: float | None,
    layer: str = "",
    precise: bool = False,
) -> list[ProbeCallback]:
    """Metrics, filters, saliency and other attribution, class images and embeddings, on one budget.

    Args:
        every: epochs from one look to the next; 0 for no probes at all.
        budget: the share of the training time that all of them together may take; no limit without it.
        layer: where the class scores are read; before the last ReLU, if the logits pass through one.
        precise: paint class images in float64, the same on any number of threads and processes.
    """
    if every < 0:
        raise ValueError(f"every={every}; wanted epochs from one look to the next, or 0 for no probes")
    shared = None if budget is None else Budget(budget)
    if every == 0:
        return []
    schedule = {"every": every, "budget": shared}
    return [
        Metrics(**schedule),
        Filters(**schedule),
        Saliency(layer=layer, **schedule),
        Attribution(score_layer=layer, **schedule),
        Occlusion(layer=layer, **schedule),
        ClassImages(layer=layer, precise=precise, **schedule),
        Embeddings(**schedule),
    ]
