"""A small network, photographs, and the command on them."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.models.networks import build


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "weights.safetensors"
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), file)
    return file


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for place, name in enumerate(("a.png", "b.jpg", "more/c.png")):
        ramp = torch.linspace(0, 255, 40 * 50).view(40, 50).to(torch.uint8)
        Image.fromarray(torch.stack([ramp, ramp.flip(place % 2), 255 - ramp], 2).numpy()).save(folder / name)
    return folder


@pytest.fixture
def ask(weights, tmp_path):
    """Asks about an image by the small network; the picture, or the exit status."""

    def asked(probe, *words, network="small_vgg"):
        out = tmp_path / "out.png"
        words = [str(word) for word in words]
        status = main([probe, *words, "--network", network, "--weights", str(weights), "--out", str(out)])
        if status == 2:
            return status
        with Image.open(out) as picture:
            return picture.convert("L")

    return asked


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs; others must end as it did."""
    from interrupted_runs import WORDS  # which imports Lightning

    folder = tmp_path_factory.mktemp("finished") / "whole"
    assert main([*WORDS, "--folder", str(folder)]) == 0
    return folder
