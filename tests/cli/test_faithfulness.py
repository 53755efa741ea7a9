"""Faithfulness from the shell: sheet, table, CSV, masks."""

import csv
from pathlib import Path

import pytest
import torch
from folder_kinds import painted
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.cli.faithfulness import _cell
from fulgurite.models.networks import build


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "masks").mkdir()
    for name in ("a", "b"):
        painted(tmp_path / "photos" / f"{name}.png")
        with Image.open(tmp_path / "photos" / f"{name}.png") as photo:
            mask = Image.new("L", photo.size)
            mask.paste(1, (0, 0, photo.width // 2, photo.height))  # the left half
        mask.save(tmp_path / "masks" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: object) -> int:
    network = ["--network", "small_vgg", "--weights", "weights.safetensors", "--size", "16", "--side", "32"]
    few = ["--steps", "3", "--draws", "4"]
    return main(["faithfulness", *(str(word) for word in words), *network, *few])


def test_a_table_a_sheet_and_a_row_of_the_csv_for_each_image_and_method(home, capsys):
    assert ask("photos", "--methods", "gradient,saliency", "--masks", "masks", "--randomise") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == [
        "method",
        "deletion",
        "insertion",
        "infidelity",
        "pointing",
        "inside",
        "random",
    ]
    assert [line.split()[0] for line in printed[1:3]] == ["gradient", "saliency"]
    assert printed[3] == "the objects take 50.0% of the images"
    with Path("faithfulness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["method"]) for row in rows] == [
        (image, method) for image in "ab" for method in ("gradient", "saliency")
    ]
    for row in rows:
        assert 0 <= float(row["inside"]) <= 1
        assert row["object_share"] == "0.500"
    mean = sum(float(row["inside"]) for row in rows if row["method"] == "gradient") / 2
    assert float(printed[1].split()[5]) == pytest.approx(mean, abs=0.002)
    with Image.open("faithfulness.png") as picture:
        assert picture.height > 2 * 32 + 200


def test_without_masks_the_usual_methods_are_measured(home, capsys):
    assert ask("photos/a.png", "--out", "one.png", "--target", "2") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["method", "deletion", "insertion", "infidelity"]
    assert len(printed) == 7
    with Path("one.csv").open() as file:
        assert {row["class"] for row in csv.DictReader(file)} == {"2"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--methods", "grad"], "no attribution method 'grad'"),
        (["--steps", "0"], "--steps 0; wanted at least 1"),
        (["--tolerance", "-1"], "--tolerance -1; wanted a number of pixels, 0 or more"),
        (["--fill", "white"], "--fill white; wanted one of grey, mean, blur"),
        (["--masks", "nowhere"], "--masks nowhere: there is no such folder"),
        (["--masks", "photos/none"], "there is no such folder"),
        (["--layer", "conv9"], "no layer 'conv9'"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(words, complaint, home, capsys):
    network = ["--network", "small_vgg", "--weights", "weights.safetensors", "--size", "16"]
    assert main(["faithfulness", "photos", *network, *words]) == 2
    reported = capsys.readouterr().err
    assert complaint in reported
    assert reported.count("\n") == 1
    assert not list(home.glob("faithfulness.*"))


def test_masks_of_another_size_and_missing_ones_are_reported(home, capsys):
    with Image.open("masks/b.png") as mask:
        mask.resize((mask.width + 1, mask.height)).save("masks/b.png")
    assert ask("photos", "--masks", "masks") == 2
    reported = capsys.readouterr().err
    assert "mask masks/b.png is" in reported
    assert reported.endswith("wanted the same size\n")
    Path("masks/b.png").unlink()
    assert ask("photos", "--masks", "masks") == 2
    assert "--masks masks: no mask for photos/b.png" in capsys.readouterr().err


def test_a_correlation_just_below_0_is_0():
    assert [_cell(value) for value in (-0.0001, -0.5, float("nan"))] == ["0.000", "-0.500", ""]
