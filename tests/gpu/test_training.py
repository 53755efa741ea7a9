"""Training on a GPU: deterministic, and the same with probes as without; where there is none, on the CPU."""

import warnings

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from fulgurite.callbacks.class_images import ClassImages
from fulgurite.data.digits import Digits
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build
from fulgurite.recipes.recipe import standard_probes

pytestmark = pytest.mark.gpu

ACCELERATOR = "cuda" if torch.cuda.is_available() else "cpu"


def trained(network: str, folder, *, probes: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    pl.seed_everything(seed, verbose=False)
    # where the CPU stands in, a few small images and steps show as much
    sizes = {"size": 16, "batch_size": 128} if ACCELERATOR == "cuda" else {"size": 8, "batch_size": 16}
    data = Digits(**sizes, seed=seed)
    net = build(network, classes=10, channels=1, mean=data.mean, std=data.std)
    model = Classifier(net, classes=10, seed=seed)
    watching = list(standard_probes(every=1, budget=None)) if probes else []
    for probe in watching:
        if isinstance(probe, ClassImages) and ACCELERATOR == "cpu":
            probe.steps = 8
    trainer = pl.Trainer(
        max_epochs=1,
        limit_train_batches=4,
        limit_val_batches=1,
        accelerator=ACCELERATOR,
        devices=1,
        deterministic=True,
        logger=TensorBoardLogger(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=watching,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, data)
    torch.use_deterministic_algorithms(False)
    return {name: value.cpu().clone() for name, value in model.state_dict().items()}


# the CPU trains a large network no other way than a small one
LARGE = pytest.param("resnet18_3x3", marks=[] if ACCELERATOR == "cuda" else pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["small_vgg", LARGE])
def test_a_deterministic_run_ends_the_same_with_and_without_probes(network, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    plain, probed = (trained(network, tmp_path / str(probes), probes=probes) for probes in (False, True))
    for name, value in plain.items():
        assert torch.equal(value, probed[name]), name
