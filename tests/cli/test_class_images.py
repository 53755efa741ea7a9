"""Class images from the shell: methods, classes, seeds, and a second network that classifies them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from folder_kinds import painted
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli import class_images
from fulgurite.cli.command import main
from fulgurite.models.networks import build
from fulgurite.probes.synthesis.class_image_methods import METHODS

FEW = ["--steps", "2", "--size", "16", "--side", "32"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    for seed, name, classes in ((0, "weights", 4), (1, "second", 4), (2, "other", 3)):
        torch.manual_seed(seed)
        file = tmp_path / f"{name}.safetensors"
        state = build("small_vgg", classes=classes, channels=3).state_dict()
        state["classifier.weight"] *= 30  # a confident network
        save_file(state, file)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        painted(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: object, few: list[str] = FEW) -> int:
    network = ["--network", "small_vgg", "--weights", "weights.safetensors"]
    return main(["class_images", *(str(word) for word in words), *network, *few])


@pytest.mark.parametrize("method", [name for name in METHODS if name != "robust"])
def test_every_method_makes_a_row_for_each_class(method, home, capsys):
    assert ask("photos", "--method", method, "--seeds", 2) == 0
    with Image.open("class_images.png") as picture:
        assert picture.height > 4 * 32
        assert picture.width > 2 * 32
        assert len(set(picture.convert("L").tobytes())) > 20
    assert "4 classes" in capsys.readouterr().out


def test_images_of_one_seed_lie_in_a_square(home):
    assert ask("--seeds", 1) == 0
    with Image.open("class_images.png") as picture:
        assert picture.width > 2 * 32
        assert 2 * 32 < picture.height < 200


def test_the_background_of_a_run_is_that_of_its_own_images(finished, home, monkeypatch, capsys):
    run = home / "run"
    shutil.copytree(finished, run)
    words = ["class_images", "--network", "run", "--target", "1", "--steps", "1", "--side", "32"]
    assert main([*words, "--out", "own.png"]) == 0
    assert main([*words, "--method", "maco", "--out", "maco.png"]) == 0
    capsys.readouterr()

    def gone(*_):
        raise FileNotFoundError("no data")

    monkeypatch.setattr("fulgurite.data.image_data_module.ImageData.setup", gone)
    assert main([*words, "--out", "grey.png"]) == 0
    assert "note: none of the run's own images: no data" in capsys.readouterr().err
    own, grey = (np.asarray(Image.open(f"{name}.png").convert("L"))[24:50, 2:30] for name in ("own", "grey"))
    assert own.mean() < 60  # digits are bright on black
    assert 100 < grey.mean() < 155


def test_several_networks_side_by_side_equal_each_alone(home, capsys):
    assert ask("--out", "one.png") == 0
    second = ["--network", "small_vgg", "--weights", "second.safetensors"]
    assert ask(*second, "--out", "both.png") == 0
    assert "2 networks" in capsys.readouterr().out
    one, both = (np.asarray(Image.open(f"{name}.png")) for name in ("one", "both"))
    # the second one was asked for first
    own = below_the_title(one)
    height, width = own.shape[:2]
    places = [
        x
        for x in range(both.shape[1] - width + 1)
        for y in range(both.shape[0] - height + 1)
        if (both[y : y + height, x : x + width] == own).all()
    ]
    assert len(places) == 1
    assert places[0] > width


def below_the_title(pixels: np.ndarray) -> np.ndarray:
    """What is not background, from the first tile on."""
    shown = (pixels != pixels[0, 0]).any(2)
    shown[:24] = False
    rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_options_of_each_network_are_given_once_for_each(home, capsys):
    assert ask("--network", "small_vgg") == 2
    assert "--weights is given 1 time for 2 networks; wanted once for each" in capsys.readouterr().err


def test_robust_images_start_from_photographs_of_their_class(home, capsys):
    assert ask("photos", "--method", "robust") == 2
    told = capsys.readouterr().err
    assert "starts from images that are predicted as the class, and none is as" in told
    assert "those given are as" in told
    assert not Path("class_images.png").exists()


def test_chosen_classes_and_a_judge_are_told_in_numbers(home, capsys, monkeypatch: pytest.MonkeyPatch):
    notes, noted = [], class_images.noted
    monkeypatch.setattr(class_images, "noted", lambda *args: notes.extend(args[1:]) or noted(*args))
    second = ["--judge", "small_vgg", "--judge_weights", "second.safetensors"]
    assert ask("--target", 2, "--target", 0, "--seeds", 3, *second) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["2", "0"]
    assert all(line.count("small_vgg: ") == 3 for line in lines)
    assert "2 classes" in last
    (note,) = notes
    assert note.startswith("by fourier; %: probability of the class by this network, and by small_vgg at ")


def test_more_steps_raise_the_probability(home, capsys):
    def probability(steps: int) -> int:
        assert ask("--target", 1, few=["--steps", str(steps), "--size", "16", "--side", "32"]) == 0
        return int(capsys.readouterr().out.split("1: ")[1].split("%")[0])

    assert probability(60) > probability(1) + 20


def test_steps_are_a_number(home, capsys):
    assert ask(few=["--steps", "none"]) == 2
    assert "--steps none; wanted a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--method", "maco"], "--method maco needs images"),
        (["--target", "9"], "no class 9; wanted a name, or a number from 0 to 3"),
        (["--seeds", "0"], "--seeds 0; wanted at least 1"),
        (["--radius", "1"], "wanted a number above 0, and --method robust"),
        (["--preset", "decay"], "--preset decay; wanted --method yosinski with it"),
        (["--judge", "small_vgg"], "give a file of them: --judge_weights FILE.safetensors"),
        (["--judge_weights", "second.safetensors"], "--judge_weights without --judge"),
        (
            ["--judge", "small_vgg", "--judge_weights", "other.safetensors"],
            "has 3 classes, and small_vgg has 4",
        ),
        (["--score_layer", "conv9"], "conv9"),
        (["--score_layer", "conv1"], "conv1 has 32 outputs, the network 4 classes; wanted a layer with"),
        (["--seeds", "1000", "--size", "512", "--side", "512"], "too many at once"),
    ],
)
def test_what_cannot_be_done_is_reported_in_one_line(words, complaint, home, capsys):
    few = [] if "--size" in words else FEW
    assert ask(*words, few=few) == 2
    reported = capsys.readouterr().err
    assert complaint in reported
    assert reported.count("\n") == 1
    assert not Path("class_images.png").exists()


def test_features_of_a_run_are_the_strongest_on_its_own_images(finished, home, capsys):
    shutil.copytree(finished, home / "run")
    few = ["--steps", "1", "--side", "32", "--most", "2", "--layers", "relu3"]
    assert main(["features", "--network", "run", *few]) == 0
    assert "features.png" in capsys.readouterr().out
    with Image.open("features.png") as picture:
        assert np.asarray(picture.convert("L"))[30:50, 60:80].mean() < 60  # digits are bright on black
