"""Grey images of 10, 12 or 14 bits in files of 16: scaled by the folder's files or the user's option."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fulgurite.cli.command import main
from fulgurite.data.decoding import read_image
from fulgurite.data.folder import Folder
from fulgurite.data.grey_range import white_of

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


def fill(folder: Path, *, top: int, ending: str = "png") -> Path:
    """Two classes, one dark and one bright, of which one pixel has the largest value."""
    for number, name in enumerate(("dark", "bright")):
        (folder / name).mkdir(parents=True)
        for place in range(5):
            pixels = np.full((16, 16), (number + 1) * top // 4 + place, np.uint16)
            pixels[0, 0] = top
            Image.fromarray(pixels).save(folder / name / f"{place}.{ending}")
    return folder


def shade(data: Folder) -> float:
    """The brightness of the first bright image."""
    data.setup()
    return float(next(image for image, label in data.val if data.classes[label] == "bright").median())


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(("top", "white"), [(1000, 1023), (4095, 4095), (9000, 16383), (60000, 65535)])
def test_the_range_is_that_of_the_fewest_bits_that_hold_the_folder(tmp_path, top, white, ending, caplog):
    data = Folder(fill(tmp_path / "x", top=top, ending=ending), size=16, channels=1)
    assert data.white == white
    assert shade(data) == pytest.approx(top / 2 / white, abs=0.01)
    assert (f"{white} is white" in caplog.text) is (white < 65535)


def test_what_the_user_says_is_white(tmp_path):
    data = Folder(fill(tmp_path / "x", top=3000), size=16, channels=1, white=6000)
    assert shade(data) == pytest.approx(1500 / 6000, abs=0.01)
    for wrong in (0, 65536):
        with pytest.raises(ValueError, match=f"white is the value of white pixels, .*; got {wrong}"):
            Folder(tmp_path / "x", white=wrong)


def test_an_image_beyond_the_range_that_is_stated_is_refused_in_a_sentence(tmp_path):
    Image.fromarray(np.array([[0, 5000]], np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(
        ValueError, match="its pixels go from 0 to 5000; wanted 0 to 4095 for whole numbers, so give a larger"
    ):
        read_image(tmp_path / "x.png", channels=1, white=4095)


def test_photographs_of_eight_bits_have_no_such_range(tmp_path):
    Image.new("RGB", (4, 4), "white").save(tmp_path / "x.png")
    Image.new("L", (4, 4), 9).save(tmp_path / "y.png")
    assert white_of([str(tmp_path / "x.png"), str(tmp_path / "y.png")]) is None
    assert white_of([]) is None


def test_a_run_learns_from_twelve_bits_and_predicts_by_the_same_range(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "x", top=4000)
    words = ["--path", "x", "--network", "small_vgg", "--size", "32", "--channels", "1", "--every", "0"]
    words += ["--workers", "0", "--epochs", "12", "--lr", "0.003", "--folder", "run", "--augment", "false"]
    assert main(["fit", "folder", *words, *QUIET]) == 0
    assert json.loads(Path("run/run.json").read_text())["images"]["white"] == 4095
    assert main(["predict", "run", "x/bright/0.png", "x/dark/1.png", "--top", "1", "--out", "p.csv"]) == 0
    rows = Path("p.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["bright", "dark"]
