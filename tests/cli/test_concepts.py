"""Concept sheets from the shell."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.data.crops import from_the_middle
from fulgurite.models.networks import build
from fulgurite.probes.predict import predict


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "photos").mkdir()
    for place in range(6):
        pixels = torch.randint(256, (20, 24, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / f"{place}.png")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def predicted(home: Path) -> list[int]:
    """What the network takes the images for."""
    network = build("small_vgg", classes=4, channels=3, weights=home / "weights.safetensors").eval()
    cut = from_the_middle(16)
    images = [cut(Image.open(file)) for file in sorted((home / "photos").iterdir())]
    return predict(network, torch.stack(images)).argmax(1).tolist()


def ask(*words: object) -> int:
    network = ["--network", "small_vgg", "--weights", "weights.safetensors", "--classes", "names.txt"]
    return main([*(str(word) for word in words), *network, "--size", "16", "--side", "32"])


def test_a_sheet_of_the_images_that_the_network_puts_into_the_class(predicted, capsys):
    target = max(predicted, key=predicted.count)
    name = ("ant", "bee", "cat", "dog")[target]
    assert ask("concepts", "photos", "--class", name, "--count", 3, "--layer", "relu2") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:3]] == ["concept 1", "concept 2", "concept 3"]
    assert printed[3].startswith("mean class score ")
    together = float(printed[3].rpartition(" ")[2])
    assert sum(float(line.split()[3]) for line in printed[:3]) == pytest.approx(together, abs=1e-2)
    images = predicted.count(target)
    assert f"3 concepts of relu2, {images} image{'s' * (images > 1)}" in printed[4]
    with Image.open("concepts.png") as picture:
        assert picture.height > 3 * 32
        assert picture.width > 6 * 32
        assert len(set(picture.convert("L").tobytes())) > 20


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--class", "eel"], "no class 'eel' among 4"),
        (["--class", "0", "--layer", "conv9"], "no layer 'conv9'"),
        (["--class", "0", "--count", "0"], "--count 0; wanted at least 1"),
        (["--class", "0", "--crop", "1.5"], "--crop 1.5; wanted a share"),
        (["--class", "0", "--crop", "0.001"], "--crop 0.001; wanted a share of 0.02 to 1"),
        (["--class", "0", "--seed", "-1"], "--seed -1; wanted 0 or more"),
        ([], "the following arguments are required: --class"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(words, complaint, home, capsys):
    assert ask("concepts", "photos", *words) == 2
    reported = capsys.readouterr().err
    assert complaint in reported
    assert reported.count("\n") == 1
    assert not Path("concepts.png").exists()


def test_a_class_without_images_is_reported(predicted, capsys):
    (absent, *_) = set(range(4)) - {*predicted}
    assert ask("concepts", "photos", "--class", absent) == 2
    assert "the network puts none of the images into class" in capsys.readouterr().err
