"""A recipe: model, data, epochs and probes; and the standard probes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
from torch import Tensor, nn

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
from fulgurite.models.mixup_cutmix import check_mixes
from fulgurite.models.weights import load
from fulgurite.probes.attacks.threat import Threat

_FOLLOW = ContextVar("weights follow", default=False)
_DOWNLOAD = ContextVar("data may be downloaded", default=True)


@contextmanager
def weights_follow(follow: bool = True, *, download: bool = True) -> Iterator[None]:
    """Within the block, recipes are built for weights that come from a checkpoint afterwards.

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
    """Whether recipes built here get their weights from a checkpoint afterwards."""
    return _FOLLOW.get()


def may_download() -> bool:
    """Whether data may be downloaded to any place that the knobs name."""
    return _DOWNLOAD.get()


@runtime_checkable
class NamesNetwork(Protocol):
    """What a LightningModule must have to be a recipe's model: a property that names its network.

    Probes run on this network, and layers are named from it; `predict` and `test` assume that it maps images
    to logits.
    """

    @property
    def network_to_probe(self) -> nn.Module:
        """The network."""
        ...


@dataclass
class Recipe:
    """A model, its data, the length of the training, and its probes.

    Args:
        model: any LightningModule with a property `network_to_probe`, see `NamesNetwork`.
        data: the data module.
        epochs: passes over the training images.
        probes: run in training, and on a finished run.
        callbacks: further callbacks of the training.
        monitor: the metric that chooses the best checkpoint, the larger the better.
        patience: epochs without a better one after which training stops; no early stopping without it.
    """

    model: pl.LightningModule
    data: pl.LightningDataModule
    epochs: int
    probes: Sequence[ProbeCallback] = field(default_factory=list)
    callbacks: Sequence[pl.Callback] = field(default_factory=list)
    monitor: str = "val/accuracy"
    patience: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(getattr(self.model, "network_to_probe", None), nn.Module):
            raise ValueError(
                f"{type(self.model).__name__} does not name its network; wanted a property network_to_probe, "
                "the part that maps images to what is looked at"
            )
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}; wanted at least 1")
        if self.patience is not None and self.patience < 1:
            raise ValueError(
                f"patience={self.patience}; wanted at least 1 epoch, or None never to stop early"
            )
        if isinstance(self.model, Classifier):
            check_mixes(getattr(self.data, "mixing", ()), self.model.loss, self.model.task)

    @property
    def network(self) -> nn.Module:
        """The network that probes run on, and whose weights a run saves."""
        assert isinstance(self.model, NamesNetwork)
        return self.model.network_to_probe

    @property
    def threat(self) -> Threat | None:
        """The threat that the network is trained against, if any."""
        return getattr(self.model, "threat", None)

    def load(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Give the network its weights from those of a checkpoint, which may hold other parts of the model.

        Raises:
            ValueError: they are not the network's.
        """
        paths = [path for path, part in self.model.named_modules() if part is self.network and path]
        for path in paths:
            own = {
                name.removeprefix(f"{path}."): value
                for name, value in state.items()
                if name.startswith(f"{path}.")
            }
            if own and not set(self.network.state_dict()) & set(state):
                state = own
        load(self.network, state, source=source)

    def takes(self) -> dict[str, Any]:
        """The format of the network's images, and its classes; nothing if that is not known.

        `size`, `channels`, `framing` and `white` are the data's; `mean` and `std` are what the network
        normalises by.
        """
        own = self.network.state_dict()
        if not isinstance(self.data, ImageData) or "normalise.mean" not in own:
            return {}
        return {
            "classes": list(self.data.classes),
            **{name: getattr(self.data, name) for name in ("size", "channels", "framing")},
            **{name: own[f"normalise.{name}"].flatten().tolist() for name in ("mean", "std")},
            **({"white": white} if (white := getattr(self.data, "white", None)) else {}),
        }


def classifier_of(recipe: Recipe) -> Classifier:
    """The model of a recipe, where a `Classifier` is needed.

    Raises:
        ValueError: it is another LightningModule.
    """
    if not isinstance(recipe.model, Classifier):
        raise ValueError(f"the recipe trains a {type(recipe.model).__name__}; wanted a Classifier")
    return recipe.model


def standard_probes(
    *,
    every: int,
    budget: float | None,
    layer: str = "",
    precise: bool = False,
    composite: str | None = None,
) -> list[ProbeCallback]:
    """Metrics, filters, saliency and other attribution, class images and embeddings, with a common budget.

    Args:
        every: epochs from one run of the probes to the next; 0 for no probes at all.
        budget: the share of the training time that all of them together may take; no limit without it.
        layer: where the class scores are read; before the last ReLU, if the logits pass through one.
        precise: compute class images in float64, the same on any number of threads and processes.
        composite: how images of 2, 4 or more channels are shown, see `COMPOSITES`.
    """
    if every < 0:
        raise ValueError(
            f"every={every}; wanted epochs from one run of the probes to the next, or 0 for no probes"
        )
    shared = None if budget is None else Budget(budget)
    if every == 0:
        return []
    schedule = {"every": every, "budget": shared, "composite": composite}
    return [
        Metrics(**schedule),
        Filters(**schedule),
        Saliency(layer=layer, **schedule),
        Attribution(score_layer=layer, **schedule),
        Occlusion(layer=layer, **schedule),
        ClassImages(layer=layer, precise=precise, **schedule),
        Embeddings(**schedule),
    ]
