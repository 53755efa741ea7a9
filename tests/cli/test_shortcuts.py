"""Shortcuts and error slices from the shell."""

import html
import re
from pathlib import Path

import pytest
import torch
from folder_kinds import painted
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.models.networks import build
from fulgurite.probes.representation.error_slices import ErrorSlice


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    save_file(build("small_vgg", classes=2, channels=3).state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    for name in ("ant", "bee"):
        for place in range(5):
            painted(tmp_path / "photos" / name / f"{place}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: object) -> int:
    network = ["--network", "small_vgg", "--weights", "weights.safetensors", "--size", "16", "--side", "32"]
    return main(["shortcuts", *(str(word) for word in words), *network])


def test_each_class_has_its_components_with_their_strongest_images(home, capsys):
    assert ask("photos", "--classes", "names.txt", "--components", 2, "--strongest", 4) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in printed[:4]] == [
        f"{name}: component {number}"
        for name in ("ant", "bee")
        for number in (f"1, {printed[0].split(', ')[1]}".split(",")[0], "2")
    ]
    assert printed[-2].startswith("no error slices")
    assert "2 classes, 10 images, 0 error slices" in printed[-1]
    with Image.open("shortcuts.png") as picture:
        assert picture.height > 8 * 32
        assert picture.width > 4 * 32


def test_without_names_folders_are_classes_in_their_order(home, capsys):
    assert ask("photos", "--class", "1", "--out", "one.png") == 0
    assert "1: component 1" in capsys.readouterr().out
    assert Path("one.png").exists()


def test_the_sheet_says_what_its_rows_and_numbers_are(home):
    assert ask("photos", "--class", "1", "--out", "one.svg") == 0
    drawn = re.sub(r"<[^>]*>|\s", "", Path("one.svg").read_text())  # lines are broken anywhere
    assert "1,component1:" in drawn
    assert "left:acomponent'sshareofthevarianceofitsclass'sscore" in html.unescape(drawn)
    assert "whatitaddstotheirscore" in drawn


def test_a_slice_is_of_a_class_also_where_that_is_a_number(home, capsys, monkeypatch):
    own = ErrorSlice(1, torch.tensor([5, 6, 7]), 3, 0.6, 0, 0.01)
    monkeypatch.setattr("fulgurite.cli.shortcuts.error_slices", lambda *_: [own])
    assert ask("photos", "--class", "1", "--out", "slices.svg") == 0
    printed = capsys.readouterr().out
    assert "slice of 1: 3 of 3 wrong, mostly taken for 0; of the whole class 60%; such as" in printed
    assert "1:3of3wrong;ofthewholeclass60%" in re.sub(r"<[^>]*>|\s", "", Path("slices.svg").read_text())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["photos", "--classes", "names.txt", "--class", "wasp"], "no class 'wasp' among 2"),
        (["photos", "--components", "0"], "--components 0; wanted at least 1"),
        (["photos/ant"], "folder ant: no class 'ant'"),
        (["nowhere"], "no image or folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(words, complaint, home, capsys):
    assert ask(*words) == 2
    reported = capsys.readouterr().err
    assert complaint in reported
    assert reported.count("\n") == 1
    assert not list(home.glob("*.png"))
