"""Activation maps and silent units from the shell."""

from pathlib import Path

import pytest
import torch
from folder_kinds import painted
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.models.networks import build
from fulgurite.probes.style import colour, rgb


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    network = build("small_vgg", classes=4, channels=3)
    with torch.no_grad():  # channel 5 of the first convolution is dead
        network.conv1.weight[5] = 0
        network.norm1.bias[5] = -1
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    for place in range(11):
        painted(tmp_path / "photos" / f"{place:02d}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: object) -> int:
    network = ["--network", "small_vgg", "--weights", "weights.safetensors", "--size", "16", "--side", "32"]
    return main([*(str(word) for word in words), *network])


def test_activations_are_a_block_for_each_layer_and_a_row_for_each_image(home, capsys):
    assert ask("activations", "photos/00.png", "photos/01.png", "--layers", "conv1,relu2", "--most", 3) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:2]] == ["conv1", "relu2"]
    assert "2 layers, 2 images" in printed[2]
    with Image.open("activations.png") as picture:
        assert picture.height > 4 * 32
        assert picture.width > 4 * 32
        assert len(set(picture.convert("L").tobytes())) > 20


def test_without_layers_the_stages_are_shown(home, capsys):
    assert ask("activations", "photos/00.png") == 0
    assert ask("silent_units", "photos", "--out", "silent.png") == 0
    lines = capsys.readouterr().out.splitlines()
    half = len(lines) // 2
    assert half > 2
    assert [line.split(":")[0] for line in lines[: half - 1]] == [
        line.split(":")[0] for line in lines[half:-1]
    ]


def test_silent_units_are_counted_over_all_images_of_a_folder(home, capsys):
    assert ask("silent_units", "photos", "--layers", "relu1,conv1,relu1,logits") == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    assert printed[2].startswith("logits: ")
    for layer, line in zip(("relu1", "conv1"), printed, strict=False):
        assert line.startswith(f"{layer}: ")
        assert "channels silent (" in line
        named = line.split("channels silent (")[1].split(")")[0].split(", ")
        assert "5" in named
        assert line.endswith(", signed: silent is not dead") == (layer == "conv1")
    assert "3 layers, 11 images" in printed[3]
    with Image.open("silent_units.png") as picture:
        assert picture.width > 100
        shown = {own for _, own in picture.convert("RGB").getcolors(picture.width * picture.height)}
    assert {rgb(colour(0)), rgb(colour(1))} <= shown  # no order, so not from dim to bright


def test_an_unreadable_file_of_a_folder_is_left_out_with_a_note(home, capsys):
    (home / "photos" / "05.png").write_bytes(b"no picture")
    assert ask("silent_units", "photos", "--layers", "relu1") == 1  # done in part
    printed = capsys.readouterr()
    assert "10 images" in printed.out
    assert "note: left out: " in printed.err
    assert ask("silent_units", "photos/05.png", "--layers", "relu1") == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["activations", "photos", "--layers", "conv9"], "no layer 'conv9'"),
        (["activations", "photos", "--most", "0"], "--most 0; wanted at least 1"),
        (["activations", "photos", "--most", "many"], "--most many; wanted a whole number"),
        (["silent_units", "nowhere"], "no image or folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(words, complaint, home, capsys):
    assert ask(*words) == 2
    reported = capsys.readouterr().err
    assert complaint in reported
    assert reported.count("\n") == 1
    assert not Path(f"{words[0]}.png").exists()
