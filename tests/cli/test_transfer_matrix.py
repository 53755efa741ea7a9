"""The transfer matrix and universal perturbations from the shell."""

import csv
from pathlib import Path

import pytest
import torch
from folder_kinds import painted
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.models.networks import build


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(build("small_vgg", classes=2, channels=3).state_dict(), tmp_path / f"{seed}.safetensors")
    torch.manual_seed(0)
    save_file(build("small_vgg", classes=3, channels=3).state_dict(), tmp_path / "three.safetensors")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            painted(tmp_path / "images" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def networks(*weights: str) -> list[str]:
    return [word for one in weights for word in ("--network", "small_vgg", "--weights", f"{one}.safetensors")]


SMALL = ["--size", "16", "--device", "cpu"]


def test_the_matrix_is_printed_drawn_and_written_as_csv(home: Path, capsys):
    words = ["transfer-matrix", "images", *networks("0", "1"), *SMALL, "--classes", "names.txt"]
    for attack in ("pgd", "mifgsm"):
        assert main([*words, "--attack", attack, "--out", "matrix.png"]) == 0
        printed = capsys.readouterr().out
        rows = list(csv.reader(Path("matrix.csv").read_text().splitlines()))
        assert [row[0] for row in rows] == [
            *("source", "clean accuracy", "small_vgg (1)", "small_vgg (2)", "random noise")
        ]
        assert all(cell in printed for row in rows for cell in row)
        # fresh networks answer one class to all: half of the images are right
        assert [float(cell) for cell in rows[1][1:]] == [0.5, 0.5]
        with Image.open("matrix.png") as picture:
            assert min(picture.size) > 200


def test_an_ensemble_of_the_others_is_a_row_more(home: Path, capsys):
    words = ["transfer-matrix", "images", *networks("0", "1"), *SMALL, "--classes", "names.txt"]
    words += ["--attack", "mifgsm", "--diverse", "--ensemble", "--out", "matrix.png"]
    assert main(words) == 0
    rows = list(csv.reader(Path("matrix.csv").read_text().splitlines()))
    assert [row[0] for row in rows[-2:]] == ["all others together", "random noise"]
    # of two networks, the other one is all others: each column holds the other row's figure
    assert rows[-2][1:] == [rows[3][1], rows[2][2]]
    assert main([*words[:2], *words[2:6], *SMALL, "--classes", "names.txt", "--ensemble"]) == 2
    assert "wanted at least two" in capsys.readouterr().err


def test_the_class_of_a_file_s_name_alone_is_its_folder_s(home: Path, monkeypatch, capsys):
    words = ["--size", "16", "--device", "cpu", "--classes", "../../names.txt"]
    alone = ["--network", "small_vgg", "--weights", "../../0.safetensors", *words]
    monkeypatch.chdir(home / "images" / "dog")
    assert main(["transfer-matrix", "0.png", "../cat", *alone, "--out", "../../matrix.png"]) == 0
    assert "5 images" in capsys.readouterr().out


def test_networks_of_other_classes_are_refused(home: Path, capsys):
    assert main(["transfer-matrix", "images", *networks("0", "three"), *SMALL]) == 2
    assert "wanted networks of the same classes and channels" in capsys.readouterr().err


def test_a_universal_perturbation_is_tried_on_held_out_images_and_other_networks(home: Path, capsys):
    words = ["universal", "images", *networks("0", "1"), *SMALL, "--passes", "2", "--side", "48"]
    assert main([*words, "--out", "shift.png"]) == 0
    printed = capsys.readouterr().out
    for name in ("small_vgg (1)", "small_vgg (2)"):
        assert f"{name}: " in printed
    assert printed.count("of 2 held-out images fooled (") == 2
    with Image.open("shift.png") as picture:
        assert min(picture.size) > 90
        assert picture.height > 3 * 48  # a row for each image, though both are called 3.png


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["universal", "images/cat/0.png", *networks("0")], "1 image; wanted at least 4"),
        (["universal", "images", *networks("0"), "--passes", "0"], "--passes 0; wanted 1 to"),
        (["universal", "images", *networks("0"), "--eps", "0"], "--eps 0 moves no pixel"),
    ],
)
def test_an_impossible_universal_perturbation_is_reported(home: Path, words, reported, capsys):
    assert main([*words, *SMALL]) == 2
    assert reported in capsys.readouterr().err
