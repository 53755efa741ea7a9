"""A recipe, and the command, take any LightningModule that names its network: here a stylizer."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fulgurite.callbacks.filters import Filters
from fulgurite.cli.command import main
from fulgurite.data.digits import Digits
from fulgurite.models.weights import read
from fulgurite.recipes import digits
from fulgurite.recipes.recipe import NamesNetwork, Recipe, classifier_of


class Painter(pl.LightningModule):
    """An autoencoder: it has no classes, and its network is a submodule."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.painter = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))

    @property
    def network_to_probe(self) -> nn.Module:
        return self.painter

    def forward(self, images):
        return self.painter(images) * self.scale

    def _loss(self, batch):
        return F.mse_loss(self(batch[0]), batch[0])

    def training_step(self, batch, _):
        return self._loss(batch)

    def validation_step(self, batch, _):
        self.log("val/likeness", -self._loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test/likeness", -self._loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def painted(epochs: int = 1) -> Recipe:
    probes = [Filters(layers=2, on_error="raise")]
    return Recipe(Painter(), Digits(batch_size=256), epochs, probes, monitor="val/likeness")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_command_trains_tests_and_probes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(digits, "recipe", painted)
    folder = str(tmp_path / "run")
    assert main(["fit", "digits", "--folder", folder]) == 0
    assert main(["fit", "digits", "--resume", folder, "--epochs", "2"]) == 0
    assert main(["probe", folder]) == 0
    assert main(["test", folder]) == 0
    assert (tmp_path / "run" / "pictures" / "Filters_2.png").exists()
    assert "test/likeness" in (tmp_path / "run" / "test.json").read_text()


def test_its_network_takes_its_own_weights_out_of_the_model_s(tmp_path: Path):
    one, other = painted(), painted()
    torch.save({"state_dict": one.model.state_dict()}, file := tmp_path / "painter.ckpt")
    other.load(read(file), source=str(file))
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(other.network(images), one.network(images))
    other.load(one.network.state_dict(), source="bare weights")


def test_a_model_that_names_no_network_is_reported():
    assert isinstance(Painter(), NamesNetwork)
    with pytest.raises(ValueError, match="LightningModule does not name its network; wanted a property netw"):
        Recipe(pl.LightningModule(), Digits(), 1)
    with pytest.raises(ValueError, match="the recipe trains a Painter; wanted a Classifier"):
        classifier_of(painted())
