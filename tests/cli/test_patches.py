"""Strongest patches from the shell."""

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
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), tmp_path / "weights.safetensors")
    for place in range(12):  # of several sizes
        file = tmp_path / "photos" / ("red", "blue")[place % 2] / f"{place:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (20 + place, 24, 3), dtype=torch.uint8)
        pixels[..., place % 2] //= 4
        Image.fromarray(pixels.numpy()).save(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: object) -> int:
    network = ["--network", "small_vgg", "--weights", "weights.safetensors", "--size", "16", "--side", "32"]
    return main([*(str(word) for word in words), *network])


def test_patches_of_units_and_directions_are_rows_of_a_picture(home, capsys):
    assert ask("patches", "photos", "--layer", "conv1,relu2", "--units", "3,5,9", "--patches", 4) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(
        "conv1: 32 channels, 3 directions; class purity of all 0."
    )  # as many as units
    assert printed[1].startswith("relu2: ")
    assert "2 layers, 12 images" in printed[2]
    with Image.open("patches.png") as picture:
        assert 2 * 3 * 32 < picture.height < 2 * 6 * 32
        assert picture.width > 2 * 4 * 32
        assert len(set(picture.convert("L").tobytes())) > 20


def test_without_layers_the_stages_that_have_maps_are_shown(home, capsys):
    assert ask("patches", "photos/red", "--directions", 0, "--patches", 2, "--most", 2) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) > 2
    assert all(line.endswith(" channels, 0 directions") for line in printed[:-1])  # one class has no purity


def test_an_unreadable_file_of_a_folder_is_left_out_with_a_note(home, capsys):
    (home / "photos" / "red" / "04.png").write_bytes(b"no picture")
    assert ask("patches", "photos", "--layer", "conv1", "--patches", 11) == 1  # done in part
    printed = capsys.readouterr()
    assert "1 layer, 11 images" in printed.out
    assert "note: left out: " in printed.err
    assert ask("patches", "photos", "--layer", "conv1", "--patches", 12) == 2
    assert "error: 11 images for 12 patches of each unit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--layer", "conv9"], "no layer 'conv9'"),
        (["--layer", "logits"], "has no spatial extent"),
        (["--layer", "conv1", "--units", "32"], "unit 32 of layer 'conv1'; wanted a channel from 0 to 31"),
        (["--units", "3,x"], "--units 3,x; wanted numbers of channels, such as 3,17"),
        (["--patches", "13"], "12 images for 13 patches of each unit"),
        (["--patches", "0"], "--patches 0; wanted at least 1"),
        (["--directions", "-1"], "--directions -1; wanted at least 0"),
        (["--most", "many"], "--most many; wanted a whole number"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(words, complaint, home, capsys):
    assert ask("patches", "photos", *words) == 2
    reported = capsys.readouterr().err
    assert complaint in reported
    assert reported.count("\n") == 1
    assert not Path("patches.png").exists()
