"""Command tcav: a line for each layer, a picture, and one line for an error."""

import re

import pytest
import torch
from PIL import Image

from fulgurite.cli.command import main


@pytest.fixture
def folders(tmp_path):
    for name, count, seed in (("concept", 6, 0), ("others", 12, 1)):
        (tmp_path / name).mkdir()
        noise = torch.Generator().manual_seed(seed)
        for place in range(count):
            pixels = torch.randint(0, 256, (24, 24, 3), generator=noise, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / name / f"{place}.png")
    return ["--concept", str(tmp_path / "concept"), "--random", str(tmp_path / "others")]


def test_each_layer_has_a_line_and_the_picture_is_written(ask, photos, folders, capsys):
    words = [photos, *folders, "--class", "1", "--layers", "conv1,conv2", "--size", "16"]
    picture = ask("tcav", *words)
    lines = capsys.readouterr().out.splitlines()
    for layer, line in zip(("conv1", "conv2"), lines, strict=False):
        assert re.match(rf"{layer}: TCAV score [01]\.\d\d .* p = 0?\.\d+|{layer}: TCAV .* p = 1;", line), line
    assert "2 layers, 3 images" in lines[-1]
    assert picture.height > 250


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--layers", "conv9"], "no layer 'conv9'"),
        (["--concept", "nowhere"], "--concept nowhere is not a folder; wanted a folder of images"),
        (["--most", "3"], "3 images of the concept; wanted at least 5"),
        (["--class", "9"], "no class 9"),
    ],
)
def test_what_cannot_be_is_one_sentence(weights, photos, folders, change, message, capsys):
    usual = {"--class": "1", "--layers": "conv2", "--size": "16"} | dict([change])
    options = [word for option in usual.items() for word in option]
    words = ["tcav", str(photos), *folders, *options]
    assert main([*words, "--network", "small_vgg", "--weights", str(weights)]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert message in printed[-1]
