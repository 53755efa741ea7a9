"""Predictions of any images: cropped as the run's validation images, as a table, with attribution."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from folder_kinds import ODD, painted
from image_kinds import BAD, GOOD, SMALL
from PIL import Image
from sklearn.datasets import load_digits
from torch.testing import assert_close

from fulgurite.cli.command import main
from fulgurite.cli.trained_network import TrainedNetwork, restored
from fulgurite.data.crops import FRAMINGS
from fulgurite.data.digits import NAMES, Digits
from fulgurite.data.folder import Folder
from fulgurite.recipes import run as runs

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that separates red pictures from blue ones, whose images have been deleted."""
    home = tmp_path_factory.mktemp("pets")
    for number, name in enumerate(("blue ones", "red")):
        (home / "data" / name).mkdir(parents=True)
        for place in range(10):
            colour = (200 * number, 10 * place, 200 - 200 * number)
            Image.new("RGB", (40, 30), colour).save(home / "data" / name / f"{place}.png")
    words = ["--path", str(home / "data"), "--network", "small_vgg", "--size", "16", "--epochs", "6"]
    more = ["--every", "0", "--workers", "0", "--batch_size", "4", "--lr", "0.003", *QUIET]
    assert main(["fit", "folder", *words, *more, "--folder", str(home / "run")]) == 0
    shutil.move(home / "data", home / "gone")
    return home / "run"


@pytest.fixture
def run(pets: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pets, tmp_path / "run"))


def table(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_a_folder_becomes_a_table_without_the_training_images(run: Path, capsys: pytest.CaptureFixture):
    (run.parent / "new" / "deep").mkdir(parents=True)
    (run / "predictions.draft").write_text("mine")
    Image.new("RGB", (90, 50), (200, 20, 0)).save("new/a, b.jpg")
    Image.new("RGB", (50, 90), (0, 20, 200)).save("new/deep/b.webp")
    Path("new/notes.txt").write_text("no image")
    assert main(["predict", str(run), "new"]) == 0
    assert "2 images; 1 other files in the folders passed over" in capsys.readouterr().out
    assert (run / "predictions.draft").read_text() == "mine"
    reported = table(run / "predictions.csv")
    assert [(line["path"], line["class_1"]) for line in reported] == [
        ("new/a, b.jpg", "red"),
        ("new/deep/b.webp", "blue ones"),
    ]
    assert list(reported[0]) == ["path", "class_1", "probability_1", "class_2", "probability_2"]
    for line in reported:
        chances = [float(line["probability_1"]), float(line["probability_2"])]
        assert sum(chances) == pytest.approx(1, abs=2e-6)
        assert chances[0] > chances[1]


def test_probabilities_are_averaged_over_views(run: Path, capsys: pytest.CaptureFixture):
    image = Image.new("RGB", (32, 32), (200, 0, 0))
    image.paste((0, 0, 200), (0, 0, 16, 24))
    image.save("a.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("b.png")
    found = {}
    for views in ("1", "2"):
        assert main(["predict", str(run), "a.png", "b.png", "--out", f"{views}.csv", "--tta", views]) == 0
        lines = table(Path(f"{views}.csv"))
        found[views] = [
            float(line["probability_1" if line["class_1"] == "red" else "probability_2"]) for line in lines
        ]
    assert found["2"] == pytest.approx([sum(found["1"]) / 2] * 2, abs=1e-4)
    assert main(["predict", str(run), "a.png", "--tta", "13"]) == 2
    assert "--tta 13; wanted 1 to 12 views of each image" in capsys.readouterr().err


def test_pictures_are_framed_as_the_validation_images_were(run: Path):
    asked = restored(run, runs.checkpoint(run))
    generator = np.random.default_rng(0)
    for name in ("here", "there"):
        Path("new", name).mkdir(parents=True)
        for place in range(2):
            noise = generator.integers(0, 256, (37, 53, 3), np.uint8)
            Image.fromarray(noise).save(f"new/{name}/{place}.png")
    data = Folder("new", size=16, val_share=0.5)
    data.setup()
    files = [file for part in data.files["val"].values() for file in part]
    for (image, _), file in zip(data.val, files, strict=True):
        assert_close(asked.image(file), image, rtol=0, atol=0)


def test_digits_are_framed_as_the_digits_are():
    data = Digits(size=32)
    data.setup()
    own, _ = load_digits(return_X_y=True)
    place = next(k for k, value in enumerate(data._labels.tolist()) if value == 8)
    Image.fromarray((own[place].reshape(8, 8) / 16 * 255).round().astype(np.uint8)).save("8.png")
    framed = TrainedNetwork(torch.nn.Identity(), NAMES, channels=1, frame=FRAMINGS[Digits.framing](32)).image(
        Path("8.png")
    )
    # a file has 256 shades, the digits have 17
    assert_close(framed, data._images[place], rtol=0, atol=1 / 255)


@pytest.mark.parametrize("kind", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16", "I", "F", "turned"], ids=str)
def test_pictures_of_any_kind_are_read(run: Path, kind: str):
    half = np.zeros((30, 40), np.uint8)
    half[:, 20:] = 200
    grey = Image.fromarray(half)
    name = "x.jpg" if kind in ("CMYK", "turned") else "x.tif" if kind in ("I", "F") else "x.png"
    if kind == "turned":
        exif = Image.Exif()
        exif[274] = 3  # upside down
        grey.rotate(180).save(name, exif=exif, quality=100)
    elif kind.startswith("I"):
        Image.fromarray(half.astype(np.uint16 if kind == "I;16" else np.int32) * 256).save(name)
    elif kind == "F":
        Image.fromarray(half.astype(np.float32) / 255).save(name)
    else:
        grey.convert(kind).save(name)
    asked = restored(run, runs.checkpoint(run))
    image = asked.image(Path(name))
    assert not isinstance(image, str), image
    assert image.shape == (3, 16, 16)
    assert float(image[:, :, 0].mean()) < 0.03
    assert float(image[:, :, -1].mean()) == pytest.approx(200 / 255, abs=0.03)  # one bit is dithered


def test_unreadable_files_are_named_and_the_rest_is_processed(run: Path, capsys: pytest.CaptureFixture):
    Image.new("RGB", (20, 20), "red").save("good.png")
    Path("bad.jpg").write_text("no image")
    Path("notes.txt").write_text("no image")
    cut = Path("good.png").read_bytes()[:40]
    Path("cut.png").write_bytes(cut)
    assert main(["predict", str(run), "bad.jpg", "good.png", "notes.txt", "cut.png", "good.png"]) == 1
    printed = capsys.readouterr()
    assert [line.split(": ")[1] for line in printed.err.splitlines()] == ["bad.jpg", "notes.txt", "cut.png"]
    assert "1 image; 3 unreadable" in printed.out
    assert [line["path"] for line in table(run / "predictions.csv")] == ["good.png"]


def test_where_nothing_can_be_read_nothing_is_written(run: Path, capsys: pytest.CaptureFixture):
    Path("bad.jpg").write_text("no image")
    assert main(["predict", str(run), "bad.jpg", "--explain"]) == 2
    assert "none of 1 image can be read; nothing was written" in capsys.readouterr().err
    assert main(["predict", str(run), "bad.jpg", "--out", "/proc/found.csv"]) == 2
    assert "--out /proc/found.csv: nothing can be written there" in capsys.readouterr().err
    assert not list(run.glob("predictions*"))


def test_batches_change_nothing(run: Path):
    Path("new").mkdir()
    for place in range(7):
        Image.new("RGB", (30, 30), (30 * place, 9, 90)).save(f"new/{place}.png")
    for size, out in (("1", "one.csv"), ("3", "three.csv")):
        assert main(["predict", str(run), "new", "--batch_size", size, "--out", out, "--top", "1"]) == 0
    one, three = table(Path("one.csv")), table(Path("three.csv"))
    assert [line["class_1"] for line in one] == [line["class_1"] for line in three]
    assert len(one) == 7
    assert list(one[0]) == ["path", "class_1", "probability_1"]
    assert_close(*(torch.tensor([float(line["probability_1"]) for line in lines]) for lines in (one, three)))


def test_a_table_on_the_screen_is_nothing_but_the_table(run: Path, capsys: pytest.CaptureFixture):
    Image.new("RGB", (20, 20), "red").save("good.png")
    assert main(["predict", str(run), "good.png", "--out", "-"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("path,class_1")
    assert len(printed) == 2
    assert not list(run.glob("predictions*"))


def test_each_image_has_its_own_sheet(run: Path):
    Path("new").mkdir()
    for place, colour in enumerate(("red", "blue", "red")):
        Image.new("RGB", (30, 30), colour).save(f"new/{place}.png")
    words = ["--explain", "--batch_size", "2", "--out", "explained.csv"]
    assert main(["predict", str(run), "new", *words]) == 0
    reported = table(Path("explained.csv"))
    assert [line["sheet"] for line in reported] == [f"explained/{k + 1:04d}_{k}.png" for k in range(3)]
    for line in reported:
        with Image.open(line["sheet"]) as sheet:
            assert sheet.width > 4 * 224
            assert sheet.height > 224
    pixels = [np.asarray(Image.open(line["sheet"])) for line in reported]
    assert pixels[0].shape != pixels[1].shape or (pixels[0] != pixels[1]).any()


def test_a_file_may_be_called_anything(run: Path):
    Path("new").mkdir()
    for name in ODD:
        painted(Path("new", name))
    assert main(["predict", str(run), "new", "--explain"]) == 0
    reported = table(run / "predictions.csv")
    # a byte that is not UTF-8 is written \xff; all others as they are
    names = {os.fsencode(name).decode("utf-8", "backslashreplace") for name in ODD}
    assert {Path(line["path"]).name for line in reported} == names
    sheets = sorted(str(file) for file in (run / "predictions").iterdir())
    assert sorted(line["sheet"] for line in reported) == sheets
    assert len(sheets) == len(ODD)


def test_a_table_may_be_called_anything(run: Path, capsys: pytest.CaptureFixture):
    Image.new("RGB", (20, 20), "red").save("good.png")
    out = Path(os.fsdecode(b"\xff\n.csv"))
    assert main(["predict", str(run), "good.png", "--out", str(out), "--explain"]) == 0
    assert capsys.readouterr().out == "\\xff\\n.csv: 1 image; sheets in \\xff\\n\n"
    assert [Path(line["sheet"]).name for line in table(out)] == ["0001_good.png"]


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("default")
def test_images_of_every_kind_are_classified_or_named(run: Path, capsys: pytest.CaptureFixture):
    Path("new").mkdir()
    for name, make in {**GOOD, **SMALL, **{name: make for name, (make, _) in BAD.items()}}.items():
        Path("new", name).write_bytes(make())
    os.mkfifo("new/pipe.png")
    for name in ("again", "and_again"):
        Path("new", name).symlink_to(".")
    Path("new/gone.png").symlink_to("nowhere")
    before = sorted(file for file in Path().rglob("*") if "again" not in file.parts)
    assert main(["predict", str(run), "new"]) == 1
    printed = capsys.readouterr()
    assert {Path(line["path"]).name for line in table(run / "predictions.csv")} == {*GOOD, *SMALL}
    left_out = [line.split(": ")[1] for line in printed.err.splitlines() if line.startswith("left out: ")]
    assert sorted(left_out) == sorted(f"new/{name}" for name in (*BAD, "pipe.png", "gone.png"))
    assert f"{len(GOOD) + len(SMALL)} images; {len(BAD) + 2} unreadable" in printed.out
    after = sorted(file for file in Path().rglob("*") if "again" not in file.parts)
    assert sorted([*before, Path("run/predictions.csv")]) == after


def test_a_run_of_old_needs_its_images(run: Path, capsys: pytest.CaptureFixture):
    printed = json.loads((run / "run.json").read_text())
    where = Path(printed["knobs"]["path"])
    del printed["images"]
    (run / "run.json").write_text(json.dumps(printed))
    Image.new("RGB", (20, 20), "red").save("good.png")
    assert main(["predict", str(run), "good.png"]) == 2
    assert f"there is no folder {where}" in capsys.readouterr().err
    printed["knobs"]["path"] = str(where.with_name("gone"))
    (run / "run.json").write_text(json.dumps(printed))
    assert main(["predict", str(run), "good.png"]) == 0
    assert table(run / "predictions.csv")[0]["class_1"] == "red"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", "missing: the folder of a run"),
        ("run", "missing: images or folders of images"),
        ("run nowhere.png", "there is no file or folder nowhere.png"),
        ("run empty", "no images in empty"),
        ("run good.png --top 0", "--top 0; wanted at least 1"),
        ("run good.png --batch_size 0", "--batch_size 0; wanted at least 1"),
        ("run good.png --out file.txt", "--out file.txt; wanted a file that ends in .csv"),
        ("run good.png --out deep/explained.csv", "there is no folder deep"),
        ("run good.png --explane", "no option --explane; nearest: --explain"),
        ("run good.png --checkpoint first", "no checkpoint 'first'"),
        ("run good.png --explain --training_images 9", "--training_images needs the run's training images: "),
        ("empty good.png", "holds no run.json"),
    ],
)
def test_a_typing_error_is_one_line_and_leaves_nothing(
    words: str, complaint: str, run: Path, capsys: pytest.CaptureFixture
):
    Image.new("RGB", (20, 20), "red").save("good.png")
    Path("empty").mkdir()
    assert main(["predict", *words.split()]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(Path().rglob("*.csv"))


def test_a_damaged_note_is_reported(run: Path, capsys: pytest.CaptureFixture):
    Image.new("RGB", (20, 20), "red").save("good.png")
    printed = json.loads((run / "run.json").read_text())
    for damage in ({"framing": "askew"}, {"classes": 3}, {"size": None}):
        (run / "run.json").write_text(json.dumps(printed | {"images": printed["images"] | damage}))
        assert main(["predict", str(run), "good.png"]) == 2
        assert "damaged" in capsys.readouterr().err, damage
