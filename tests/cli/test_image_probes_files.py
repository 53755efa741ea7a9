"""The shell and files of every kind: what is read is a row, what is not is a note."""

import os
from pathlib import Path

import pytest
import torch
from folder_kinds import ODD, painted
from image_kinds import BAD, GOOD, SMALL
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.data.image_files import printable
from fulgurite.models.networks import build

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("default")]
BAD_NAMES = [*BAD, "pipe.png", "gone.png"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all kinds of files, and links that never end."""
    folder = tmp_path_factory.mktemp("everything")
    for name, make in {**GOOD, **SMALL, **{name: make for name, (make, _) in BAD.items()}}.items():
        (folder / name).write_bytes(make())
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere")
    for name in ("again", "and_again"):
        (folder / name).symlink_to(".")
    return folder


@pytest.fixture
def ask(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def asked(probe: str, *words: object) -> int:
        base = ["--network", "small_vgg", "--weights", weights, "--size", 16, "--side", 16]
        return main([str(word) for word in (probe, *words, *base, "--out", tmp_path / "out.png")])

    return asked


DOORS = {
    "gradient": [],
    "compare": ["--methods", "gradient,grad_cam"],
    "segment": ["--rounds", 1, "--components", 2],
    "attack": ["--attack", "fgsm", "--eps", "8/255"],
    "dream": ["--layers", "conv1", "--steps", 1, "--octaves", 1],
    "fool": ["--target", 1, "--steps", 1],
}


@pytest.mark.parametrize("probe", DOORS)
def test_a_folder_of_all_kinds_is_looked_at(probe, ask, everything, tmp_path, capsys):
    before = sorted(everything.iterdir())
    assert ask(probe, everything, *DOORS[probe]) == 1  # done in part: the bad ones are left out
    printed = capsys.readouterr()
    kinds = "photographs" if probe == "fool" else "rows"
    assert f"{len(GOOD) + len(SMALL)} {kinds}" in printed.out
    left_out = [line for line in printed.err.splitlines() if line.startswith("note: left out: ")]
    named = sorted(line.split(" cannot be read as an image: ")[0] for line in left_out)
    assert named == sorted(f"note: left out: {everything / name}" for name in BAD_NAMES)
    assert sorted(everything.iterdir()) == before
    assert list(tmp_path.iterdir()) == [tmp_path / "out.png"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_file_that_is_named_is_refused_in_a_line(name, ask, everything, tmp_path, capsys):
    assert ask("gradient", everything / name) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {'no image ' * (name == 'gone.png')}{everything / name}")
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_names_of_any_bytes_are_rows(ask, tmp_path, capsys):
    for name in ODD:
        painted(tmp_path / "odd" / name)
    assert ask("attack", tmp_path / "odd", *DOORS["attack"]) == 0
    printed = capsys.readouterr().out
    printed.encode()
    lines = printed.splitlines()
    assert len(lines) == len(ODD) + 1
    assert sorted(line.split(": ")[0] for line in lines[:-1]) == sorted(printable(Path(n).stem) for n in ODD)


def test_the_sheet_of_a_name_with_line_breaks_has_one_line_for_it(ask, tmp_path):
    heights = []
    for name in ("ab.png", "a\nb.png"):
        painted(tmp_path / "in" / name)
        assert ask("gradient", tmp_path / "in" / name) == 0
        with Image.open(tmp_path / "out.png") as sheet:
            heights.append(sheet.height)
    assert heights[0] == heights[1]
