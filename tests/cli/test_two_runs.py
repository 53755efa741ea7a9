"""Commands that look into a run's layers, or compare two runs."""

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from fulgurite.cli.command import main
from fulgurite.recipes.digits import recipe
from fulgurite.recipes.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has trained nothing yet, but has checkpoints."""
    return made(tmp_path_factory.mktemp("runs") / "run", seed=0)


def made(folder: Path, *, seed: int) -> Path:
    knobs = {"size": 8, "network": "all_conv", "every": 0, "seed": seed}
    state = recipe(**knobs).network.state_dict()
    Run("digits", knobs, {}).write(folder)
    (folder / "checkpoints").mkdir()
    for name in ("last", "best"):
        torch.save({"state_dict": state}, folder / "checkpoints" / f"{name}.ckpt")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_stitch_prints_draws_and_writes_the_accuracy_of_each_layer(run: Path, capsys):
    words = ["--layers", "relu2,relu4:relu4", "--fit", "40", "--images", "20", "--epochs", "0"]
    assert main(["stitch", str(run), f"{run}@best", *words]) == 0
    said = capsys.readouterr().out
    assert "least squares" in said
    assert "2 layers, 20 images" in said
    with Path("stitch.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["front"] for row in rows] == ["relu2", "relu4"]
    # the same weights: a network and itself
    assert rows[0]["naive"] == rows[0]["accuracy of the back network"]
    with Image.open("stitch.png") as picture:
        assert picture.width > 100


def test_equivariance_prints_draws_and_writes_a_row_for_each_layer(run: Path, capsys):
    words = ["--transforms", "vflip,roll2", "--layers", "relu2,relu4", "--fit", "40", "--images", "20"]
    assert main(["equivariance", str(run), *words]) == 0
    said = capsys.readouterr().out
    assert "2 transformations, 3 rows, 20 images" in said
    with Path("equivariance.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["relu2", "relu4", "HOG"] * 2
    assert float(rows[2]["error, 1 x 1"]) < 1e-3  # mirrored, HOG has its directions in another order
    with Image.open("equivariance.png") as picture:
        assert picture.height > 400


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stitch", "{run}", "nowhere"], "nowhere is no folder"),
        (["stitch", "{run}", "{run}@first"], "no checkpoint 'first' in"),
        (["stitch", "{run}", "{run}", "--layers", "relu2:"], "wanted LAYER or FRONT:BACK"),
        (["stitch", "{run}", "{run}", "--layers", "relu99"], "no layer 'relu99'"),
        (["equivariance", "{run}", "--transforms", "mirror"], "no transformation 'mirror'; wanted hflip"),
        (["equivariance", "{run}", "--layers", "relu99"], "no layer 'relu99'"),
        (["stitch", "{run}", "{run}", "--fit", "1"], "--fit 1; wanted at least 2"),
    ],
)
def test_what_cannot_be_compared_is_one_line(words: list[str], said: str, run: Path, tmp_path: Path, capsys):
    assert main([word.format(run=run) for word in words]) == 2
    lines = capsys.readouterr().err.strip().split("\n")
    assert said in lines[-1]
    assert lines[-1].startswith("error: ")
    assert not list(tmp_path.iterdir())
