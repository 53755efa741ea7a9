"""Requirements of probes on networks and data: probes work, or raise a clear error before training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import somebody
import torch
import torch.nn.functional as F
from every_probe import every_probe
from labelled import loader
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.session import Session
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.overfitting import CatastrophicOverfitting
from fulgurite.callbacks.saliency import Saliency
from fulgurite.probes.attacks.threat import Linf

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


class Answers(somebody.Theirs):
    """What it makes of logits is up to a function."""

    def __init__(self, make: Callable[[Tensor], Any] = lambda logits: logits, *, classes: int = 3):
        super().__init__()
        self.make = make
        self.head = nn.Linear(6 * 25, classes)

    def forward(self, images):
        return self.make(super().forward(images))

    def training_step(self, batch, _):
        return self.head.weight.sum()


class Maps(Answers):
    def __init__(self):
        super().__init__()
        self.more = nn.Conv2d(6, 24, 1)

    def forward(self, images):
        return self.more(self.features(images))


class WantsDict(Answers):
    def forward(self, batch):
        return super().forward(batch["pixel_values"])


class BeforeTraining(pl.Trainer):
    """What a probe asks of a trainer before training."""

    train_dataloader = val_dataloaders = test_dataloaders = lightning_module = datamodule = None

    def __init__(self, model: pl.LightningModule, data: DataLoader):
        self.train_dataloader = self.val_dataloaders = data
        self.lightning_module = model


def rows(label: int) -> Tensor:
    return F.one_hot(torch.tensor(label), 3).float()


def several(label: int) -> Tensor:
    """Labels 0 to 2, of which an image has one or two."""
    return (torch.arange(3) <= label).float()


# networks and data that no probe of classes can look at, and what it says
REFUSED: dict[str, tuple[Callable, Callable, str]] = {
    "one logit of many classes": (
        lambda: Answers(classes=1),
        lambda: loader(lambda k: 2 - k),
        "gives one number for an image, and labels go from . to 2; wanted 0 and 1 for one logit",
    ),
    "one number and no labels": (
        lambda: Answers(classes=1),
        lambda: loader(lambda k: "cat"),
        "gives one number for an image, and the data have no labels",
    ),
    "one label in a row": (
        Answers,
        lambda: loader(rows),
        r"float32 \[n, 3\], with a single 1 for each.*task=",
    ),
    "labels of more": (
        Answers,
        lambda: loader(lambda k: F.one_hot(torch.tensor(k), 5).byte()),
        r"labels that are uint8 \[n, 5\]; wanted one class number",
    ),
    "feature maps": (Maps, loader, r"Maps maps 1 image to \(1, 24, 5, 5\); wanted logits .*average maps"),
    "maps of logits": (
        lambda: Answers(lambda z: z[:, :, None, None].expand(-1, -1, 4, 4)),
        loader,
        r"maps 1 image to \(1, 3, 4, 4\); wanted logits .*network_to_probe",
    ),
    "tokens": (lambda: Answers(lambda z: z[:, None].expand(-1, 7, -1)), loader, r"1 image to \(1, 7, 3\)"),
    "regression of whole numbers": (
        lambda: Answers(classes=2),
        lambda: loader(lambda k: 20 + k),
        "but Answers gives 2 logits; wanted labels from 0 to 1",
    ),
    "labels below 0": (Answers, lambda: loader(lambda k: k - 1), "labels from -1 to .*, but Answers"),
    "a dict": (lambda: Answers(lambda z: {"logits": z}), loader, "maps 1 image to dict; wanted logits"),
    "a tuple": (lambda: Answers(lambda z: (z, z)), loader, "maps 1 image to tuple; wanted logits"),
    "sigmoids": (
        lambda: Answers(lambda z: z.sigmoid()),
        lambda: loader(several),
        "gives probabilities; wanted logits, as they are before its sigmoid",
    ),
    "one sigmoid": (
        lambda: Answers(lambda z: z.sigmoid().squeeze(1), classes=1),
        lambda: loader(lambda k: k % 2),
        "gives probabilities; wanted logits, as they are before its sigmoid",
    ),
    "probabilities": (lambda: Answers(lambda z: z.softmax(1)), loader, "gives probabilities; wanted logits"),
    "class numbers": (
        lambda: Answers(lambda z: z.argmax(1, keepdim=True).expand(-1, 3)),
        loader,
        "gives torch.int64, wanted logits in floating point",
    ),
}

# they need no logits
ANY = {
    "Activations",
    "Dreams",
    "Drift",
    "Embeddings",
    "Features",
    "Filters",
    "ImageGrid",
    "Invariance",
    "Inversions",
    "LayerTable",
    "Neighbours",
    "Patches",
    "SilentUnits",
}
PROBES = [type(probe).__name__ for probe in every_probe()]


def probe_named(name: str) -> ProbeCallback:
    return next(probe for probe in every_probe() if type(probe).__name__ == name)


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_classes_is_refused_in_a_sentence_or_looked_at_without_them(case: str, name: str):
    make, data, words = REFUSED[case]
    model, probe, batches = make(), probe_named(name), data()
    trainer = BeforeTraining(model, batches)
    if name in ANY:
        Session().prepare(probe, trainer, model)
        return
    with pytest.raises(ValueError, match=words) as error:
        Session().prepare(probe, trainer, model)
    assert "\n" not in str(error.value)
    assert ";" in str(error.value)  # what came; what would do


@pytest.mark.parametrize(
    "case",
    [
        "a dict",
        *(
            pytest.param(case, marks=pytest.mark.slow)
            for case in ("feature maps", "labels of more", "one number and no labels")
        ),
    ],
)
def test_probes_that_need_no_classes_look_at_networks_without_them(tmp_path: Path, case: str):
    make, data, _ = REFUSED[case]
    probes = [probe for probe in every_probe() if type(probe).__name__ in ANY]
    model = make()
    model.validation_step = lambda *_: None
    somebody.quiet(tmp_path, *probes, max_epochs=1).fit(model, data(), data())
    tags = {tag for tag, _ in somebody.images(tmp_path)}
    assert tags >= {
        "Filters/features.0",
        "Drift",
        "Embeddings/pca",
        "Embeddings/tsne",
        "Dreams",
        "Features",
        "Inversions",
        "Neighbours",
        "ImageGrid/map",
        "ImageGrid/grid",
        "Activations/features",
        "Patches/features",
        "SilentUnits",
    }


def test_a_network_that_cannot_be_run_on_images_is_reported():
    model = WantsDict()
    for name in set(PROBES) - {"Filters"}:
        with pytest.raises(
            ValueError, match=r"WantsDict cannot be run on images \(1, 3, 12, 12\): .*; wanted"
        ):
            Session().prepare(probe_named(name), BeforeTraining(model, loader()), model)
    Session().prepare(probe_named("Filters"), BeforeTraining(model, loader()), model)


def test_names_of_other_classes_than_the_network_s_are_reported():
    model, data = Answers(classes=10), loader()
    data.dataset.classes = ["red", "green", "blue"]
    with pytest.raises(ValueError, match=r"the data name 3 classes, but Answers gives 10 logits; .*give"):
        Session().prepare(Saliency(**SCALE), BeforeTraining(model, data), model)
    Session().prepare(
        Saliency(classes=[str(k) for k in range(10)], **SCALE), BeforeTraining(model, data), model
    )


@pytest.mark.parametrize(
    "case", ["feature maps", "regression of whole numbers", "one label in a row", "one number and no labels"]
)
def test_a_watch_for_overfitting_is_refused_where_there_are_no_classes(case: str):
    make, data, _ = REFUSED[case]
    model = make()
    probe = CatastrophicOverfitting(Linf(0.1), **SCALE)
    with pytest.raises(ValueError, match=r"wanted|class numbers"):
        probe.on_train_start(BeforeTraining(model, data()), model)


def test_training_does_not_start_where_a_probe_refuses(tmp_path: Path):
    model = Maps()
    model.validation_step = lambda *_: None
    with pytest.raises(ValueError, match="wanted logits"):
        somebody.quiet(tmp_path, Metrics(**SCALE)).fit(model, loader(), loader())
    assert not model.losses
