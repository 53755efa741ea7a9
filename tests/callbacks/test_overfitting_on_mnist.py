"""Catastrophic overfitting of networks that are trained on MNIST."""

import gzip
import warnings
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.callbacks.overfitting import CatastrophicOverfitting
from fulgurite.models.classifier import Classifier
from fulgurite.models.losses import Adversarial, Fast, Growing
from fulgurite.models.networks import build
from fulgurite.probes.attacks.threat import Linf

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")


def mnist(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The ten thousand test images, of which 9000 are trained on."""
    with gzip.open(folder / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / "mnist" / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    order = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:9000]
    return torch.from_numpy(images / np.float32(255)).float()[order], torch.from_numpy(labels.copy()).long()[
        order
    ]


def caught(folder: Path, loss: Growing, seed: int, *, epochs: int, lr: float) -> tuple[bool, list[str]]:
    torch.manual_seed(seed)
    network = build("strided_cnn", classes=10, channels=1, mean=[0.1307], std=[0.3081])
    watch = CatastrophicOverfitting(loss.threat, answer="stop")
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[watch], **quiet)
    model = Classifier(network, classes=10, loss=loss, lr=lr)
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        trainer.fit(model, DataLoader(TensorDataset(*mnist(folder)), 100, shuffle=True))
    return watch.caught, [str(one.message) for one in printed]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_training_by_a_step_from_the_image_itself_is_caught(real_data):
    found, printed = caught(real_data, Fast(Linf(0.3), start="image"), 0, epochs=15, lr=5e-3)
    assert found
    assert sum("catastrophic overfitting: of 256" in words for words in printed) == 1


@pytest.mark.figures
@pytest.mark.timeout(1800)
def test_training_by_pgd_is_never_caught(real_data):
    found, printed = caught(real_data, Adversarial(Linf(0.3), warmup=0.4), 0, epochs=3, lr=2e-3)
    assert not found
    assert not any("catastrophic" in words or "for an epoch" in words for words in printed)


@pytest.mark.figures
@pytest.mark.timeout(1800)
def test_pgd_at_a_large_radius_from_the_start_is_reported_as_constant(real_data):
    found, printed = caught(real_data, Adversarial(Linf(0.3)), 0, epochs=3, lr=5e-3)
    assert not found
    assert sum("sat at 2.303, which is ln(10)" in words for words in printed) == 1
