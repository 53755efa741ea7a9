"""Linear classifiers of every stage: the files of the run, and known accuracies."""

import json
import re
import zipfile
from pathlib import Path

import pytest
import somebody
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fulgurite.cli import predict
from fulgurite.cli.command import main
from fulgurite.data.digits import Digits
from fulgurite.models.networks import build
from fulgurite.probes.attribution.methods import attribute
from fulgurite.probes.intervals import wilson
from fulgurite.probes.representation.stages import features

SMALL = ["--size", "8", "--network", "small_vgg"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


def reported(run: str) -> dict:
    return json.loads((Path(run) / "stages.json").read_text())


def test_the_run_s_folder_holds_table_curve_and_classifiers(capsys: pytest.CaptureFixture):
    assert main(["fit", "stages", *SMALL, "--folder", "run", "--classifier", "ridge"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"fitted to 1259 images, scored on 179; the largest class alone: 0\.1006", printed)
    found = reported("run")["networks"]["fresh weights"]
    assert list(found) == ["relu1", "relu2", "relu3", "relu4"]
    for layer, stage in found.items():
        assert stage["accuracy"] == stage["right"] / 179
        assert stage["interval"] == list(wilson(stage["right"], 179))
        assert re.search(rf"^{layer} +{stage['features']} +{stage['accuracy']:.4f} ", printed, re.MULTILINE)
        assert somebody.scalars(Path("run"))[f"stages/fresh weights/{layer}"][0][1] == pytest.approx(
            stage["accuracy"]
        )
    with Image.open("run/pictures/stages.png") as curve:
        assert curve.size == somebody.images(Path("run"))["stages", 0].shape[:0:-1]
    assert json.loads(Path("run/run.json").read_text())["recipe"] == "stages"


def test_saved_classifiers_reproduce_the_printed_accuracy():
    torch.manual_seed(7)
    network = build("small_vgg", classes=10, channels=1)
    save_file(network.state_dict(), "given.safetensors")
    words = ["--weights", "given.safetensors", "--fresh", "false", "--classifier", "ridge"]
    assert main(["fit", "stages", *SMALL, *words, "--folder", "run"]) == 0
    heads = load_file("run/stages.safetensors")
    data = Digits(size=8, shift=0, noise=0)
    data.setup()
    seen = features(network, data.val_dataloader())
    for layer, stage in reported("run")["networks"]["given weights"].items():
        scores = seen.of[layer] @ heads[f"{layer}.weight"].T + heads[f"{layer}.bias"]
        right = int((scores.argmax(1) == seen.labels).sum())
        assert abs(right - stage["right"]) <= 1  # kept in half the precision
        assert right > 100


def test_given_weights_are_compared_with_fresh_ones():
    torch.manual_seed(7)
    save_file(build("small_vgg", classes=10, channels=1).state_dict(), "given.safetensors")
    words = ["--weights", "given.safetensors", "--classifier", "ridge"]
    assert main(["fit", "stages", *SMALL, *words, "--folder", "both"]) == 0
    assert list(reported("both")["networks"]) == ["fresh weights", "given weights"]
    assert main(["fit", "stages", *SMALL, *words, "--fresh", "false", "--folder", "one"]) == 0
    assert reported("one")["networks"] == {"given weights": reported("both")["networks"]["given weights"]}


def test_features_are_taken_once(monkeypatch: pytest.MonkeyPatch):
    words = ["fit", "stages", *SMALL, "--layers", '["relu2"]']
    assert main([*words, "--classifier", "ridge", "--folder", "one"]) == 0
    kept = {file: file.stat().st_mtime_ns for file in Path("runs/features").rglob("*.npy")}
    assert len(kept) == 4
    assert main([*words, "--classifier", "logistic", "--folder", "two"]) == 0
    assert {file: file.stat().st_mtime_ns for file in Path("runs/features").rglob("*.npy")} == kept
    assert main([*words, "--cache", "null", "--classifier", "ridge", "--folder", "three"]) == 0
    assert reported("three") == reported("one")


def test_a_stage_with_colour_features_separates_red_from_blue():
    for name in ("red", "blue"):
        Path("data", name).mkdir(parents=True)
        for place in range(10):
            Image.new("RGB", (20, 20), name).save(f"data/{name}/{place}.png")
    words = ["--path", "data", "--size", "16", "--network", "small_vgg", "--per_class", "2"]
    assert main(["fit", "stages", *words, "--folder", "run"]) == 0
    assert reported("run")["images"] == {"train": 4, "val": 4, "largest": 2}
    stages = reported("run")["networks"]["fresh weights"]
    assert all(stage["accuracy"] == 1 for stage in stages.values())
    assert reported("run")["best"] == {"stage": "relu1", "first within its interval": "relu1"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--layers [relu9]", "no layer 'relu9' in SmallVGG; nearest: relu"),
        ("--grid 0", "grid=0; wanted rows and columns, at least 1"),
        ("--classifier tree", "--classifier"),
        ("--path nowhere", "no folder nowhere"),
        ("--weights nowhere.safetensors", "no file of weights at nowhere.safetensors"),
        ("--network small_vg", "no network 'small_vg'; nearest: small_vgg"),
        ("--trainer.max_epochs 3", "'stages' trains nothing with Lightning; leave out --trainer.max_epochs"),
    ],
)
def test_a_typing_error_is_one_line_and_leaves_nothing(
    words: str, complaint: str, capsys: pytest.CaptureFixture
):
    assert main(["fit", "stages", *words.split(), "--folder", "deep/run"]) == 2
    assert complaint in capsys.readouterr().err
    assert not Path("deep").exists()


def test_results_are_neither_resumed_nor_overwritten_nor_used_as_a_network(capsys: pytest.CaptureFixture):
    assert (
        main(["fit", "stages", *SMALL, "--layers", '["relu1"]', "--classifier", "ridge", "--folder", "run"])
        == 0
    )
    before = Path("run/stages.json").read_bytes()
    assert main(["fit", "stages", "--resume", "run"]) == 2
    assert "a run of 'stages' trains no network; predict RUN PATH" in capsys.readouterr().err
    Path("run/checkpoints").mkdir()
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, "run/checkpoints/last.ckpt")
    assert main(["fit", "stages", "--resume", "run"]) == 2
    assert "holds only weights, and no training that could be resumed" in capsys.readouterr().err
    Path("run/checkpoints/last.ckpt").unlink()
    assert main(["fit", "stages", "--folder", "run"]) == 2
    assert "holds results already" in capsys.readouterr().err
    assert main(["probe", "run"]) == 2
    assert "a run of 'stages' trains no network; predict RUN PATH" in capsys.readouterr().err
    assert main(["probe", "run", "--checkpoint", "run/stages.safetensors"]) == 2
    assert "a run of 'stages' holds no network of its own" in capsys.readouterr().err
    Image.new("L", (8, 8)).save("x.png")
    assert main(["predict", "run", "x.png", "--checkpoint", "run/stages.safetensors"]) == 2
    assert "a run of 'stages' holds no network of its own" in capsys.readouterr().err
    assert Path("run/stages.json").read_bytes() == before


@pytest.mark.parametrize("given", [True, False])
def test_predict_uses_the_best_stage(given: bool, capsys: pytest.CaptureFixture):
    torch.manual_seed(7)
    save_file(build("small_vgg", classes=10, channels=1).state_dict(), "given.safetensors")
    words = ["--weights", "given.safetensors"] * given + ["--layers", '["relu3"]', "--grid", "2"]
    assert main(["fit", "stages", *SMALL, *words, "--classifier", "ridge", "--folder", "run"]) == 0
    data = Digits(size=8, shift=0, noise=0)
    data.setup()
    for place in range(len(data.val)):
        image, label = data.val[place]
        Path("digits", str(label)).mkdir(parents=True, exist_ok=True)
        pixels = (255 * image[0]).round().byte().numpy()
        Image.fromarray(pixels).save(f"digits/{label}/{place}.png")
    capsys.readouterr()
    assert main(["predict", "run", "digits", "--top", "1", "--out", "-"]) == 0
    printed = capsys.readouterr()
    assert "by the linear classifier of relu3" in printed.err
    rows = [line.split(",") for line in printed.out.splitlines()[1:]]
    right = sum(Path(path).parent.name == answer for path, answer, _ in rows)
    (stage,) = [*reported("run")["networks"].values()][-1].values()
    assert len(rows) == 179
    assert right / 179 == pytest.approx(stage["accuracy"], abs=0.02)


def test_classifiers_are_not_put_upon_other_weights(capsys: pytest.CaptureFixture):
    save_file(build("small_vgg", classes=10, channels=1).state_dict(), "given.safetensors")
    words = ["--weights", "given.safetensors", "--classifier", "ridge", "--folder", "run"]
    assert main(["fit", "stages", *SMALL, *words]) == 0
    Image.new("L", (8, 8), 255).save("x.png")
    assert main(["predict", "run", "x.png"]) == 0
    save_file(build("small_vgg", classes=10, channels=1).state_dict(), "given.safetensors")
    assert main(["predict", "run", "x.png"]) == 2
    assert "given.safetensors has other weights now" in capsys.readouterr().err


def test_only_the_last_stage_can_be_explained(capsys: pytest.CaptureFixture):
    Image.new("L", (8, 8), 255).save("x.png")
    for layer, status in (("relu1", 2), ("relu4", 0)):
        words = ["--layers", f'["{layer}"]', "--classifier", "ridge"]
        assert main(["fit", "stages", *SMALL, *words, "--folder", layer]) == 0
        assert main(["predict", layer, "x.png", "--explain"]) == status
    assert list(Path("relu4", "predictions").glob("*.png"))


@pytest.mark.slow
def test_class_activation_maps_explain_it_where_the_networks_own_head_is_a_convolution(monkeypatch):
    tried = {}

    def noted(name, *given, layer):
        tried[name] = layer
        return attribute(name, *given, layer=layer)

    monkeypatch.setattr(predict, "attribute", noted)
    Image.new("L", (64, 64), 255).save("x.png")
    words = ["--network", "torchvision/squeezenet1_1", "--size", "64", "--layers", '["features"]']
    assert main(["fit", "stages", *words, "--classifier", "ridge", "--folder", "run"]) == 0
    assert main(["predict", "run", "x.png", "--explain"]) == 0
    assert {"grad_cam", "layer_cam"} <= tried.keys()
    assert set(tried.values()) == {"network.features"}


@pytest.mark.slow
def test_deeper_stages_of_squeezenet_tell_ants_from_bees_better(real_data: Path):
    with zipfile.ZipFile(real_data / "hymenoptera_short256_q85.zip") as archive:
        archive.extractall("ants")
    words = ["--path", "ants", "--network", "torchvision/squeezenet1_0", "--size", "128", "--fresh", "false"]
    weights = ["--weights", str(real_data / "squeezenet1_0_imagenet_fp16.safetensors")]
    assert main(["fit", "stages", *words, *weights, "--folder", "run"]) == 0
    shares = [stage["accuracy"] for stage in reported("run")["networks"]["given weights"].values()]
    assert shares == sorted(shares)
    assert shares[0] < 0.8
    assert shares[-1] >= 0.87
