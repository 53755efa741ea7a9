"""Filters from the shell."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.models.networks import build


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    for name, channels in (("small_vgg", 3), ("small_cnn", 1)):
        network = build(name, classes=4, channels=channels)
        save_file(network.state_dict(), tmp_path / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


VGG = ["--network", "small_vgg", "--weights", "small_vgg.safetensors"]
CNN = ["--network", "small_cnn", "--weights", "small_cnn.safetensors"]


def test_networks_are_side_by_side_in_one_picture(home, capsys):
    assert main(["filters", *VGG, "--side", "24"]) == 0
    with Image.open("filters.png") as picture:
        one = picture.size
    assert main(["filters", *VGG, *CNN, "--side", "24"]) == 0
    assert "2 networks" in capsys.readouterr().out
    with Image.open("filters.png") as picture:
        assert picture.width > one[0] + 100
        assert len(set(picture.convert("L").tobytes())) > 20
    assert main(["filters", *VGG, *VGG, "--layer", "conv2", "--layer", "conv1", "--stimuli"]) == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([*VGG, "--layer", "relu1"], "'relu1' is a ReLU, wanted a Conv2d"),
        ([*VGG, "--layer", "conv9"], "no layer 'conv9'"),
        (
            [*VGG, "--network", "small_cnn"],
            "--weights is given 1 time for 2 networks; wanted once for each",
        ),
        ([*VGG, "--most", "0"], "--most 0; wanted at least 1"),
        ([*VGG, "--side", "5000"], "--side 5000; wanted at most 4096"),
        ([*VGG, "--most", "1000"], "--most 1000; wanted at most 256"),
        ([*VGG, "--most", "0.5"], "--most 0.5; wanted a whole number"),
        (
            [*VGG, "--layer", "conv2", "--most", "256", "--side", "4096"],
            "32 x 16 tiles of 4096 x 4096 pixels are too large a picture",
        ),
        ([*VGG, "--out", "x.gif"], "wanted a name that ends in .png or .jpg"),
        ([], "the following arguments are required: --network"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(words, complaint, home, capsys):
    assert main(["filters", *words]) == 2
    reported = capsys.readouterr().err
    assert complaint in reported
    assert reported.count("\n") == 1
    assert not Path("filters.png").exists()
