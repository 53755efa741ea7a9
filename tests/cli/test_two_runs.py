"""Commands on a run's layers and training images, or that compare two runs."""

import argparse
import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.callbacks.framework.film import Film
from fulgurite.cli import comparison_images, outputs
from fulgurite.cli.command import main
from fulgurite.cli.comparison_films import films_of
from fulgurite.cli.inputs import images_of, network_of
from fulgurite.cli.training_images import training_images_of
from fulgurite.data.digits import Digits
from fulgurite.probes.predict import predict
from fulgurite.probes.render import captioned, titled
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
    film = Film()
    for level, label in enumerate(("start", "1", "2")):
        film.add(label, {"0": Picture(torch.full((3, 16, 16), 80 * level, dtype=torch.uint8))})
    callbacks = {"ClassImages{'name': 'ClassImages'}": {"film": film.state_dict()}}
    for name in ("last", "best"):
        torch.save({"state_dict": state, "callbacks": callbacks}, folder / "checkpoints" / f"{name}.ckpt")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_stitch_prints_draws_and_writes_the_accuracy_of_each_layer(run: Path, capsys):
    words = ["--layers", "relu2,relu4:relu4", "--fit", "40", "--images", "20", "--epochs", "0"]
    # a checkpoint goes by its file's name, too
    assert main(["stitch", str(run), f"{run}@best.ckpt", *words]) == 0
    printed = capsys.readouterr().out
    assert "least squares" in printed
    assert "2 layers, 20 images" in printed
    with Path("stitch.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["front"] for row in rows] == ["relu2", "relu4"]
    # the same weights: a network and itself
    assert rows[0]["naive"] == rows[0]["accuracy of the back network"]
    with Image.open("stitch.png") as picture:
        assert picture.width > 100


def test_stitch_leaves_out_what_the_front_was_trained_on(run: Path, tmp_path: Path, capsys):
    made(tmp_path / "other", seed=1)
    words = ["--layers", "relu4", "--fit", "20", "--images", "12", "--epochs", "0", "--no_control"]
    assert main(["stitch", str(run), "other", *words]) == 0
    printed = capsys.readouterr().out
    assert "other test images, on which" in printed
    assert "1 layer, 12 images" in printed


def test_equivariance_prints_draws_and_writes_a_row_for_each_layer(
    run: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    titles = list[str]()
    monkeypatch.setattr(
        outputs, "titled", lambda pixels, title: titles.append(title) or titled(pixels, title)
    )
    words = ["--transforms", "vflip,roll2", "--layers", "relu2,relu4", "--fit", "40", "--images", "20"]
    assert main(["equivariance", str(run), *words]) == 0
    printed = capsys.readouterr().out
    assert "2 transformations, 3 rows, 20 images" in printed
    with Path("equivariance.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["relu2", "relu4", "HOG"] * 2
    assert float(rows[2]["error, 1 x 1"]) < 1e-3  # mirrored, HOG has its directions in another order
    with Image.open("equivariance.png") as picture:
        assert picture.height > 400
    assert titles == [f"equivariance: {run}"]


class Sources(HTMLParser):
    """The pictures and the headings of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.pictures, self.headings = list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.pictures += [dict(attrs).get("src")] * (tag == "img")

    def handle_data(self, data: str) -> None:
        self.headings += [data] * (self.get_starttag_text() == "<h2>" and bool(data.strip()))


SMALL = ["--images", "24", "--fit", "20", "--epochs", "0", "--class_images", "1", "--most", "3"]


def test_two_runs_are_compared_on_a_page(run: Path, tmp_path: Path, capsys, monkeypatch):
    captions = list[str]()
    monkeypatch.setattr(
        comparison_images,
        "captioned",
        lambda paper, *lines: captions.extend(lines) or captioned(paper, *lines),
    )
    other = made(tmp_path / "other", seed=1)
    assert main(["compare", str(run), "other", *SMALL, "--eps", "2/255", "--attacked", "4"]) == 0
    assert "comparison/index.html: accuracy" in capsys.readouterr().out
    page = Sources(Path("comparison/index.html").read_text())
    parts = ["The runs", "Metrics", "Similarity of layers", "Stitching", "Class images", "Disagreements"]
    parts.append("Over the epochs")
    assert page.headings == parts
    assert {*page.pictures} == {file.name for file in Path("comparison").glob("*.[pg][ni][gf]")}
    assert len(page.pictures) == 7
    for place in (1, 2):
        with Image.open(f"comparison/film_{place}_ClassImages.gif") as film:
            assert film.n_frames == 3
    found = json.loads(Path("comparison/report.json").read_text())
    metrics = found["metrics"]
    assert metrics["images"] == 24
    seen = metrics["images the first was trained on, left out"]
    assert seen > 200  # the seed divides the digits
    assert f"Left out are {seen} other test images, on which" in Path("comparison/index.html").read_text()
    only = metrics["only one right"]
    assert metrics["both right"] + sum(only) + metrics["neither right"] == 24
    assert metrics["accuracy"] == pytest.approx([(metrics["both right"] + own) / 24 for own in only])
    assert [own["knobs"]["seed"] for own in found["runs"]] == [0, 1]
    assert len(found["CKA"]["matrix"]) == len(found["CKA"]["rows"])
    assert all(row["predicted"][0] != row["predicted"][1] for row in found["disagreements"])
    for place, row in enumerate(found["disagreements"][:3]):
        image, *answers = captions[3 * place : 3 * place + 3]
        assert image == f"image {row['image']}, true {row['label']}"
        # a digit and its probability do not run into each other
        assert [own.split(": ")[1].split(", ")[0] for own in answers] == row["predicted"]
    assert other.is_dir()


def test_a_checkpoint_and_its_equal_never_disagree(run: Path, capsys):
    assert (
        main(["compare", str(run), f"{run}@best", *SMALL[:-4], "--class_images", "0", "--out", "same"]) == 0
    )
    assert "The two give the same prediction on all 24 images." in Path("same/index.html").read_text()
    found = json.loads(Path("same/report.json").read_text())
    diagonal = [row[place] for place, row in enumerate(found["CKA"]["matrix"])]
    assert diagonal == pytest.approx([1] * len(diagonal), abs=1e-6)
    assert found["stitching"]["accuracy"]["naive"] == [found["stitching"]["back network"]] * len(diagonal)
    assert found["disagreements"] == []


def test_damaged_films_of_a_checkpoint_are_detected(tmp_path: Path):
    film = Film()
    for label in ("start", "1"):
        film.add(label, {"0": Picture(torch.zeros(3, 8, 8, dtype=torch.uint8))})
    whole = film.state_dict()
    states = {
        "whole": whole,
        "none": {**whole, "frames": []},
        "words": {**whole, "frames": [[0, "start", {"0": "a picture"}]]},
        "less": {"looks": 2},
        "endless": {**whole, "frames": whole["frames"] * 40},
    }
    callbacks = {f"Probe{{'name': '{name}'}}": {"film": state} for name, state in states.items()}
    torch.save({"callbacks": callbacks}, tmp_path / "one.ckpt")
    found = films_of(tmp_path / "one.ckpt")
    assert {name: own is not None for name, own in found.items()} == {
        "whole": True,
        "words": False,
        "less": False,
        "endless": False,
    }


def test_predict_shows_the_training_images_that_raised_a_prediction(run: Path, capsys):
    """A correctly classified training image supports its own class more than any other image does."""
    compared = training_images_of(run, "best", 60)
    images, labels = compared.sample.images, compared.sample.labels
    place = int((predict(compared.networks[0], images).argmax(1) == labels).nonzero()[0, 0])
    Image.fromarray((images[place, 0] * 255).round().byte().numpy()).save("digit.png")
    words = ["--explain", "--training_images", "60", "--out", "explained.csv"]
    assert main(["predict", str(run), "digit.png", *words]) == 0
    with Path("explained/training_images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["raised"] * 5 + ["lowered"] * 5
    assert (rows[0]["training_image"], rows[0]["label"]) == (compared.names[place], rows[0]["class"])
    shares = [float(row["share"]) for row in rows]
    assert shares[:5] == sorted(shares[:5], reverse=True)
    assert shares[5:] == sorted(shares[5:])
    assert shares[0] > 0 > shares[5]
    with Image.open("explained/0001_digit.png") as sheet:
        assert sheet.height > 430  # the maps alone take 345


def test_influence_is_averaged_over_checkpoints_that_differ(run: Path, tmp_path: Path):
    one = training_images_of(run, "last", 12)
    assert len(one.networks) == 1  # its best is the same
    other, state = made(tmp_path / "other", seed=0), recipe(size=8, network="all_conv", seed=1).network
    torch.save({"state_dict": state.state_dict()}, other / "checkpoints" / "best.ckpt")
    both = training_images_of(other, "last", 12)
    assert len(both.networks) == 2
    assert both.total == len(Digits(size=8).parts()[0].images)
    images, labels = one.sample.images[:2], one.sample.labels[:2]
    alone = one.influence(images, labels)
    assert not torch.allclose(both.influence(images, labels), alone)
    both.networks, both.seen = both.networks[:1], both.seen[:1]
    torch.testing.assert_close(both.influence(images, labels), alone)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["stitch", "{run}", "nowhere"], "nowhere is not a folder"),
        (["stitch", "{run}", "{run}@first"], "no checkpoint 'first' in"),
        (["stitch", "{run}", "{run}", "--layers", "relu2:"], "wanted LAYER or FRONT:BACK"),
        (["stitch", "{run}", "{run}", "--layers", "relu99"], "no layer 'relu99'"),
        (["compare", "{run}", "nowhere"], "nowhere is not a folder"),
        (["compare", "{run}", "{run}", "--images", "2"], "--images 2; wanted at least 4"),
        (["compare", "{run}", "{run}", "--out", "a/b"], "--out a/b is not a folder"),
        (["equivariance", "{run}", "--transforms", "mirror"], "no transformation 'mirror'; wanted hflip"),
        (["equivariance", "{run}", "--layers", "relu99"], "no layer 'relu99'"),
        (["stitch", "{run}", "{run}", "--fit", "1"], "--fit 1; wanted at least 2"),
        (["predict", "{run}", ".", "--training_images", "9"], "they are shown on the sheets of --explain"),
        (["predict", "{run}", ".", "--explain", "--training_images", "0"], "0: wanted at least 1"),
        (["predict", "net.onnx", ".", "--explain", "--training_images", "9"], "has no training images"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    words: list[str], printed: str, run: Path, tmp_path: Path, capsys
):
    assert main([word.format(run=run) for word in words]) == 2
    lines = capsys.readouterr().err.strip().split("\n")
    assert printed in lines[-1]
    assert lines[-1].startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_commands_on_images_take_a_run_for_a_network(run: Path, tmp_path: Path, capsys):
    """Size, framing, classes and normalisation are the run's, as `predict` has them."""
    Image.linear_gradient("L").resize((30, 20)).save("grey.png")
    assert main(["predict", str(run), "grey.png", "--out", "-"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split(",")
    args = argparse.Namespace(
        network=str(run), weights=None, classes=None, size=None, device="cpu", images=[], left_out=[]
    )
    network, names, size, channels = network_of(args)
    assert (size, channels) == (8, 1)
    _, images = images_of([Path("grey.png")], args, size, channels)
    probabilities = predict(network, images).softmax(1)[0]
    assert names[int(probabilities.argmax())] == row[1]
    assert float(row[2]) == pytest.approx(float(probabilities.max()), abs=1e-4)
    assert main(["saliency", "grey.png", "--network", str(run), "--side", "16"]) == 0
    weights = run / "checkpoints" / "best.ckpt"
    assert main(["saliency", "grey.png", "--network", str(run), "--weights", str(weights)]) == 2
    assert "a run, which has its own; leave --weights out" in capsys.readouterr().err
    assert main(["saliency", "grey.png", "--network", "all_conv", "--weights", str(weights)]) == 0
    assert (
        f"note: --network {run} takes size, classes and normalisation from the run, too"
        in capsys.readouterr().err
    )


def test_the_layers_and_filters_of_a_run(run: Path, tmp_path: Path, capsys):
    assert main(["table", "--network", str(run), "--stages"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:6] == ["image", "1", "x", "8", "x", "8"]
    parameters = sum(own.numel() for own in recipe(size=8, network="all_conv", every=0).network.parameters())
    (total,) = [line for line in lines if line.startswith("total ")]
    assert total.split()[1] == f"{parameters:,}"
    assert main(["table", "--network", str(run), "--size", "16", "--stages"]) == 0
    assert "1 x 16 x 16" in capsys.readouterr().out
    assert main(["filters", "--network", str(run)]) == 0
    assert Path("filters.png").is_file()
    weights = run / "checkpoints" / "best.ckpt"
    assert main(["filters", "--network", f"{run},all_conv", "--weights", f",{weights}"]) == 0
    assert "2 networks" in capsys.readouterr().out
    for verb in ("table", "filters"):
        assert main([verb, "--network", str(run), "--weights", str(run / "checkpoints" / "best.ckpt")]) == 2
        assert "which has its own; leave --weights out" in capsys.readouterr().err
        assert main([verb, "--network", str(run / "checkpoints")]) == 2
        assert "is a folder; wanted the name of a network" in capsys.readouterr().err
