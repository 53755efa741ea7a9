"""Training on a folder of images: pretrained weights, and the names of metrics."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from fulgurite.cli.command import main
from fulgurite.models.networks import build
from fulgurite.recipes import folder
from fulgurite.recipes.recipe import weights_follow

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
OWN = {"path": "pets", "network": "small_vgg", "size": 32, "workers": 0, "every": 0}


@pytest.fixture(autouse=True)
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("cats", "dogs")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for place in range(6):
            Image.new("RGB", (40, 30), (200 * number, 20 * place, 90)).save(f"pets/{name}/{place}.png")


def weights(classes: int) -> str:
    torch.save(build("small_vgg", classes=classes).state_dict(), "weights.pt")
    return "weights.pt"


def test_weights_learn_at_a_tenth_of_the_rate_and_from_a_fitted_last_layer(monkeypatch: pytest.MonkeyPatch):
    fitted = []
    monkeypatch.setattr(folder, "fit_head", lambda network, data: fitted.append(data.augment))
    assert folder.recipe(**OWN).model.lr == 1e-3
    assert not fitted
    assert folder.recipe(**OWN, weights=weights(7)).model.lr == 1e-4
    assert fitted == ["none"]  # the training images as they are
    assert folder.recipe(**OWN, weights=weights(7), lr=3e-3, fitted_head=False).model.lr == 3e-3
    assert len(fitted) == 1
    # weights of as many classes bring their last layer
    assert folder.recipe(**OWN, weights=weights(2)).model.lr == 1e-4
    assert len(fitted) == 1
    with weights_follow():
        assert folder.recipe(**OWN, weights="gone.pt").model.lr == 1e-4
    assert len(fitted) == 1
    with pytest.raises(ValueError, match="fitted_head=True is for pretrained weights"):
        folder.recipe(**OWN, fitted_head=True)


def test_a_last_layer_that_cannot_be_fitted_is_fresh_with_a_message(monkeypatch: pytest.MonkeyPatch, caplog):
    def refuse(*_):
        raise ValueError("the head is not linear")

    monkeypatch.setattr(folder, "fit_head", refuse)
    folder.recipe(**OWN, weights=weights(7))
    assert "the last layer begins with fresh weights: the head is not linear" in caplog.text
    with pytest.raises(ValueError, match="not linear"):
        folder.recipe(**OWN, weights=weights(7), fitted_head=True)


@pytest.mark.parametrize("tested", [False, True])
def test_the_last_figures_are_of_test_images_only_if_there_are_any(tested: bool, caplog):
    if tested:
        for part in ("train", "val", "test"):
            for number, name in enumerate(("cats", "dogs")):
                Path("own", part, name).mkdir(parents=True)
                place = ("train", "val", "test").index(part)
                for shade in (60, 120):
                    colour = (200 * number, shade, 90 + place)
                    Image.new("RGB", (40, 30), colour).save(f"own/{part}/{name}/{shade}.png")
    words = ["--path", "own" if tested else "pets", "--network", "small_vgg", "--size", "32", "--every", "0"]
    words += ["--workers", "0", "--epochs", "1", "--folder", "run"]
    assert main(["fit", "folder", *words, *QUIET]) == 0
    found = json.loads(Path("run/test.json").read_text())["metrics"]
    assert found.keys() == {f"{'test' if tested else 'validation'}/{kind}" for kind in ("loss", "accuracy")}
    assert ("there are no test images" in caplog.text) is not tested


@pytest.mark.slow
def test_the_defaults_tell_ants_from_bees_with_pretrained_weights(real_data: Path):
    with zipfile.ZipFile(real_data / "hymenoptera_short256_q85.zip") as archive:
        archive.extractall("ants")
    words = ["--path", "ants", "--network", "torchvision/squeezenet1_0", "--size", "128", "--epochs", "2"]
    words += ["--weights", str(real_data / "squeezenet1_0_imagenet_fp16.safetensors"), "--every", "0"]
    assert main(["fit", "folder", *words, "--workers", "0", "--folder", "run", *QUIET]) == 0
    # at a rate of 1e-3 and from a fresh last layer: .57 after three epochs
    assert json.loads(Path("run/test.json").read_text())["metrics"]["validation/accuracy"] > 0.85
