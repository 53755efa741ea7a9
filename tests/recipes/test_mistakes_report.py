"""Mistakes and calibration of a run on its test images, as tables, figures and pages in its folder."""

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from fulgurite.cli.command import main
from fulgurite.models.weights import read
from fulgurite.probes.predict import predict
from fulgurite.probes.representation.calibration import calibration, fitted_temperature
from fulgurite.recipes import digits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["fit", "digits", "--epochs", "1", "--size", "8", "--network", "all_conv", "--every", "0"]
    assert main([*words, "--folder", str(folder), "--trainer.enable_progress_bar", "false"]) == 0
    return folder


def test_misclassified_images_suspects_and_duplicates_are_written(run: Path, capsys):
    assert main(["test", str(run), "--mistakes", "--trainer.enable_progress_bar", "false"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "misclassified" in line]
    assert line.startswith("of 359 test images ")
    with (run / "mistakes.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["image", "label", "its probability", "predicted", "its probability"]
    assert f" {len(rows)} misclassified" in line
    assert rows
    assert all(row[1] != row[3] and float(row[2]) <= float(row[4]) for row in rows)
    assert [float(row[2]) for row in rows] == sorted(float(row[2]) for row in rows)
    assert len({row[0] for row in rows}) == len(rows)
    for name in ("suspected_labels", "duplicates"):
        assert len((run / f"{name}.csv").read_text().splitlines()) >= 1
    with Image.open(run / "mistakes.png") as page:
        assert page.width > 96


def test_what_is_difficult_is_written_as_a_page(run: Path, capsys):
    assert main(["test", str(run), "--difficulty", "--trainer.enable_progress_bar", "false"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "the hardest is" in line]
    with (run / "difficulty.csv").open() as file:
        _, *rows = csv.reader(file)
    assert sum(int(row[1]) for row in rows) == 359
    assert [float(row[2]) for row in rows] == sorted(float(row[2]) for row in rows)
    assert line.startswith(f"of 10 classes the hardest is {rows[0][0]} (accuracy {float(rows[0][2]):.3f}), ")
    page = (run / "difficulty.md").read_text()
    counts = re.findall(r"\((\d+) (images?)\) and", page)
    assert counts
    assert all((number == "1") == (noun == "image") for number, noun in counts)
    assert f"**Hardest classes**: {rows[0][0]} ({rows[0][2]}), {rows[1][0]} ({rows[1][2]})" in page
    for name in ("difficulty.png", "difficulty_images.png"):
        assert f"]({name})" in page
        with Image.open(run / name) as picture:
            assert min(picture.size) > 200
    (run / "difficulty.csv").unlink()
    (run / "difficulty.csv").mkdir()
    assert main(["test", str(run), "--difficulty", "--trainer.enable_progress_bar", "false"]) == 2
    assert "difficulty.csv is a folder" in capsys.readouterr().err
    (run / "difficulty.csv").rmdir()


def test_calibration_is_written_by_fit_and_by_test_with_a_temperature_of_validation_images(run: Path, capsys):
    fitted = json.loads((run / "test.json").read_text())["calibration"]
    (run / "calibration.png").unlink()
    assert main(["test", str(run), "--tta", "6", "--trainer.enable_progress_bar", "false"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "views" in line]
    assert line.startswith("with the mean of 6 views of each of 359 test images: accuracy 0.")
    found = json.loads((run / "calibration.json").read_text())
    assert found["temperature"] == pytest.approx(fitted["temperature"])
    assert found["validation images"] == 179
    recipe = digits.recipe(size=8, network="all_conv", every=0)
    recipe.load(read(run / "checkpoints" / "best.ckpt"), source="best.ckpt")
    _, val, test = recipe.data.parts()
    logits = predict(recipe.network, val.images)
    assert found["temperature"] == pytest.approx(fitted_temperature(logits, val.labels), rel=1e-3)
    logits = predict(recipe.network, test.images).double()
    for name, divisor in {"as trained": 1, "after temperature scaling": found["temperature"]}.items():
        expected = calibration((logits / divisor).softmax(1), test.labels)
        assert sum(found[name]["counts"]) == 359
        assert found[name]["expected calibration error"] == pytest.approx(expected.error, abs=2e-3)
        assert fitted[name]["expected calibration error"] == pytest.approx(expected.error, abs=2e-3)
    with Image.open(run / "calibration.png") as page:
        assert page.width > 400


def test_where_tables_cannot_be_written_is_reported_before_the_test(run: Path, capsys):
    (run / "duplicates.csv").unlink(missing_ok=True)
    (run / "duplicates.csv").mkdir()
    assert main(["test", str(run), "--mistakes", "--trainer.enable_progress_bar", "false"]) != 0
    assert "is a folder" in capsys.readouterr().err
    (run / "duplicates.csv").rmdir()
