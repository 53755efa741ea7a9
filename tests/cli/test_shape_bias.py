"""Shape bias from the shell, and making cue conflicts."""

import re
from pathlib import Path

import pytest
import torch
from folder_kinds import painted
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.cli.shape_bias import _cues, _numbered
from fulgurite.models.networks import build
from fulgurite.probes.robustness.shape_bias import SIXTEEN


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    save_file(build("small_vgg", classes=3, channels=3).state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "names.txt").write_text("cat\ndog\ncar\n")
    for folder in ("shapes", "textures"):
        for name in ("cat", "dog"):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(2):
                painted(tmp_path / folder / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


NETWORK = ["--network", "small_vgg", "--weights", "weights.safetensors", "--size", "16"]


def test_conflicts_are_made_and_measured(home: Path, capsys):
    made = ["--shapes", "shapes", "--textures", "textures", "--steps", "2", "--each", "2"]
    assert main(["cue_conflict", *made, *NETWORK]) == 0
    files = sorted(Path("cue_conflict").rglob("*.png"))
    assert [file.name for file in files][:2] == ["cat1-dog1.png", "cat1-dog2.png"]
    assert len(files) == 8
    Image.new("RGB", (20, 20)).save("cue_conflict/cat/cat9-cat1.png")
    Path("cue_conflict/cat/cat8-dog1.png").write_bytes(b"no image")
    capsys.readouterr()
    assert main(["shape_bias", "cue_conflict", *NETWORK, "--classes", "names.txt"]) == 1  # done in part
    printed = capsys.readouterr()
    assert "8 images" in printed.out
    assert "shape bias" in printed.out
    assert "hit rate" in printed.out
    assert "left out: 1 image whose shape and texture are of one class" in printed.err
    assert Path("shape_bias.png").exists()


def test_no_shape_gets_a_texture_twice(home: Path, capsys):
    for number in range(3):
        Path("textures/car").mkdir(exist_ok=True)
        painted(Path(f"textures/car/{number}.png"))
    Path("textures/dog/1.png").unlink()
    made = ["--shapes", "shapes", "--textures", "textures", "--steps", "1", "--each", "4"]
    assert main(["cue_conflict", *made, *NETWORK]) == 0
    assert "cue_conflict: 16 images" in capsys.readouterr().out
    assert len(list(Path("cue_conflict").rglob("*.png"))) == 16


def test_conflicts_are_made_without_images_that_cannot_be_read(home: Path, capsys):
    Path("shapes/cat/0.png").write_bytes(b"no image")
    made = ["cue_conflict", "--shapes", "shapes", "--textures", "textures", "--steps", "1", *NETWORK]
    assert main(made) == 1  # done in part
    printed = capsys.readouterr()
    assert "left out: shapes/cat/0.png" in printed.err
    assert "cue_conflict: 3 images" in printed.out
    Path("textures/cat/0.png").write_bytes(b"no image")
    Path("textures/cat/1.png").write_bytes(b"no image")
    Path("shapes/cat/1.png").write_bytes(b"no image")
    assert main(made) == 2
    assert "none of the images can be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names", [("cat", "T-shirt"), ("n02123045", "n02504458"), ("1", "11"), ("class1", "class11")]
)
def test_what_is_made_is_read_again(names):
    for number in (1, 12):
        for shape, texture in (names, names[::-1]):
            file = Path(f"{_numbered(shape, number)}-{_numbered(texture, 3)}.png")
            assert _cues(file, names) == (names.index(shape), names.index(texture))


def test_making_conflicts_asks_for_nothing_that_it_does_not_need(capsys):
    with pytest.raises(SystemExit):
        main(["cue_conflict", "--help"])
    options = set(re.findall(r"--[a-z]+", capsys.readouterr().out.partition("options:")[2]))
    assert options == {
        f"--{name}"
        for name in (
            "help",
            "shapes",
            "textures",
            "each",
            "steps",
            "network",
            "weights",
            "size",
            "out",
            "device",
        )
    }


def test_names_tell_shape_and_texture():
    known = list(SIXTEEN)
    assert _cues(Path("cat1-elephant2.png"), known) == (known.index("cat"), known.index("elephant"))
    assert _cues(Path("x/knife-oven.png"), known) == (known.index("knife"), known.index("oven"))
    assert _cues(Path("class10-class11.png"), ["class1", "class10", "class11"]) == (1, 2)
    for name in ("cat.png", "cat1-unicorn2.png", "-cat.png"):
        with pytest.raises(ValueError, match=r"wanted SHAPE-TEXTURE, such as airplane1-truck2\.png"):
            _cues(Path(name), known)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["shape_bias", "shapes", *NETWORK], "its name states no shape and texture"),
        (["shape_bias", "none", *NETWORK], "no image or folder none"),
        (["cue_conflict", "--shapes", "none", "--textures", "textures", *NETWORK], "there is no folder none"),
        (["cue_conflict", "--shapes", "shapes/cat", "--textures", "textures", *NETWORK], "a folder for each"),
        (
            ["cue_conflict", "--shapes", "shapes", "--textures", "textures", "--each", "0", *NETWORK],
            "wanted at least 1",
        ),
        (
            ["cue_conflict", "--shapes", "shapes", "--textures", "textures", "--each", "3", *NETWORK],
            "some shapes have only 2 textures of other classes",
        ),
    ],
)
def test_what_cannot_be_measured_or_made_is_one_sentence(home: Path, capsys, words, printed):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert printed in error
    assert error.count("\n") == 1
