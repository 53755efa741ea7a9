"""Advice: measured on a folder of synthetic images from end to end; a typing error is one line."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli import advise, advise_networks
from fulgurite.cli.advise import measure
from fulgurite.cli.command import main
from fulgurite.models.networks import build
from fulgurite.probes.render import decoded
from fulgurite.recipes.quick_fit import QuickFit

IMAGES = 8
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Noise that is reddish or bluish; names that a shell would trip over."""
    generator = torch.Generator().manual_seed(0)
    for channel, name in ((0, "red ants"), (2, "blue's")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(IMAGES):
            pixels = torch.randint(180, (16, 16, 3), generator=generator, dtype=torch.uint8)
            pixels[..., channel] += 60
            Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(build("small_cnn", classes=5).state_dict(), tmp_path / "backbone.safetensors")
    return tmp_path / "backbone.safetensors"


def asked(path: Path, weights: Path, *more: str) -> list[str]:
    known = ["--network", "small_cnn", "--weights", str(weights), "--size", "8"]
    return ["advise", "folder", "--path", str(path), *known, *more]


@pytest.mark.slow
def test_advice_is_measured_printed_and_written_and_its_command_trains(photos, weights, capsys):
    knobs = ["--folds", "2", "--epochs", "1", "--strategies", "linear,full,scratch"]
    assert main(asked(photos, weights, *knobs)) == 0
    printed = capsys.readouterr().out
    folder = Path("runs/advise/0")
    reported = json.loads((folder / "advice.json").read_text())
    assert reported["images"] == {"blue's": IMAGES, "red ants": IMAGES}
    assert [*reported["strategies"]][1:] == ["linear", "full", "scratch"]
    curve = reported["linear classifiers by training images and stage"]
    assert [*curve] == ["half", "all"]
    assert [*curve["all"]] == ["relu1", "relu2", "relu3"]
    assert max(stage["mean"] for stage in curve["all"].values()) == 1  # colours are easy to tell apart
    assert reported["recommended"] in reported["strategies"]
    assert reported["command"] in printed
    assert "These images seem" in printed
    assert decoded((folder / "accuracy_by_stage.png").read_bytes()).shape[0] == 3
    for name, line in reported["commands"].items():
        train, *words = shlex.split(line)
        assert train == "fulgurite"
        quick = [] if "probe" in name else ["--every", "0", "--workers", "0", *QUIET]
        assert main([*words, *quick, "--folder", name]) == 0
        assert main(["predict", name, str(photos)]) == 0


def tried(monkeypatch: pytest.MonkeyPatch) -> list:
    """What would be trained."""
    seen = []

    def quick_fit(recipe):
        seen.append(recipe)
        return QuickFit(torch.ones(2 * IMAGES // 2, dtype=torch.bool), 2.0)

    monkeypatch.setattr(advise, "quick_fit", quick_fit)
    return seen


def test_every_strategy_gets_every_fold(photos, weights, monkeypatch):
    seen = tried(monkeypatch)
    knobs = {"network": "small_cnn", "weights": str(weights), "size": 8, "folds": 2}
    found = measure(path=str(photos), strategies=["linear", "full"], **knobs)
    assert len(seen) == 4
    judged = [{file for files in one.data.files["val"].values() for file in files} for one in seen]
    assert judged[0] == judged[2]
    assert judged[0].isdisjoint(judged[1])
    assert len(judged[0] | judged[1]) == 2 * IMAGES
    assert {"linear", "full"} < found.tried.keys()


def test_a_budget_leaves_fewer_epochs(photos, weights, monkeypatch):
    knobs = {"network": "small_cnn", "weights": str(weights), "size": 8, "folds": 2, "epochs": 10}
    for seconds, epochs in ((1.0, 1), (26.0, 3), (1000.0, 10)):  # 2 s for an epoch, and one to find that out
        seen = tried(monkeypatch)
        found = measure(path=str(photos), strategies=["linear", "full"], budget=seconds, **knobs)
        assert found.epochs == epochs
        assert [one.epochs for one in seen] == [1] + [epochs] * 4


def test_scratch_begins_without_the_weights(photos, weights, monkeypatch):
    tried(monkeypatch)
    knobs = {"network": "small_cnn", "weights": str(weights), "size": 8, "folds": 2}
    found = measure(path=str(photos), strategies=["linear", "scratch"], **knobs)
    assert "--weights" in found.commands["linear"]
    assert "--weights" not in found.commands["scratch"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--folds", "9"], "each of 9 folds needs an image of every class; there are 8 of"),
        (["--folds", "1"], "folds=1; wanted 2 or more"),
        (["--epochs", "0"], "wanted 1 epoch or more"),
        (["--budget", "-3"], "seconds above 0"),
        (["--strategies", "[]"], "no strategies to compare"),
        (["--strategies", "[linea]"], "--strategies"),
        (["--sise", "8"], "no option --sise; "),
        (["--path", "nowhere"], "there is no folder nowhere"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_slip_is_one_sentence_and_leaves_nothing(photos, weights, capsys, more, message):
    assert main(asked(photos, weights, *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_one_class_is_no_choice(photos, weights, capsys):
    (photos / "red ants").rename(photos.parent / "elsewhere")
    assert main(asked(photos, weights)) == 2
    assert "only one class" in capsys.readouterr().err


def test_advise_without_data_is_an_error(capsys):
    assert main(["advise", "digits"]) == 2
    assert "no advice on 'digits'; there are: folder" in capsys.readouterr().err
    assert main(["advise"]) == 0
    assert "--strategies" in capsys.readouterr().out


def test_advice_is_not_overwritten(photos, weights, capsys):
    Path("old").mkdir()
    Path("old/advice.json").write_text("{}")
    assert main(asked(photos, weights, "--folder", "old")) == 2
    assert "holds advice already" in capsys.readouterr().err
    assert Path("old/advice.json").read_text() == "{}"


def test_many_networks_are_ranked_the_best_measured_and_all_is_saved_as_it_goes(
    photos, weights, capsys, monkeypatch
):
    known = [f"small_cnn={weights}", "small_vgg", f"small_cnn={weights.with_name('gone.safetensors')}"]
    torch.manual_seed(1)
    save_file(build("small_vgg", classes=5).state_dict(), file := weights.with_name("other.safetensors"))
    known[1] += f"={file}"
    saved = []
    monkeypatch.setattr(
        advise_networks,
        "write_atomic",
        lambda file, text: (saved.append(json.loads(text)), file.write_text(text)),
    )
    more = ["--size", "8", "--folds", "2", "--measured", "2", "--folder", "found"]
    assert main(["advise", "folder", "--path", str(photos), "--networks", ",".join(known), *more]) == 0
    printed = capsys.readouterr().out
    reported = json.loads(Path("found/networks.json").read_text())
    assert {one["network"] for one in reported["networks"][:2]} == {*known[:2]}
    assert "no file of weights" in reported["networks"][2]["not scored"]
    assert all(
        one["accuracy"]["mean"] > 0.9 for one in reported["networks"][:2]
    )  # colours are easy to tell apart
    assert reported["images"] == 2 * IMAGES
    assert "H-Score: a weighted tau needs three measured networks" in printed
    assert "best measured: " in printed
    assert [len(one["networks"]) for one in saved[:3]] == [1, 2, 3]
    assert decoded(Path("found/networks.png").read_bytes()).shape[0] == 3
    assert main(["advise", "folder", "--path", str(photos), "--networks", ",".join(known), *more]) == 2
    assert "found holds advice already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--networks", "a,,b"], "wanted different names with commas between them, or small"),
        (["--networks", "small_cnn", "--measured", "-1"], "measured=-1"),
        (["--networks", "nonesuch", "--size", "8"], "no network could be scored; nonesuch: "),
        (["--networks", "small_cnn", "--strategy", "scratch"], "uses no weights"),
    ],
)
def test_networks_that_cannot_be_ranked_are_reported(photos, capsys, words, complaint):
    assert main(["advise", "folder", "--path", str(photos), *words]) == 2
    assert complaint in capsys.readouterr().err


def test_advice_that_was_interrupted_continues_by_the_same_command(photos, weights, monkeypatch, capsys):
    seen = []

    def quick_fit(recipe):
        seen.append(recipe)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return QuickFit(torch.ones(IMAGES, dtype=torch.bool), 2.0)

    monkeypatch.setattr(advise, "quick_fit", quick_fit)
    words = asked(photos, weights, "--folds", "2", "--epochs", "1", "--strategies", "linear,full")
    main(words)
    assert "each training is saved in runs/advise/0" in capsys.readouterr().out
    assert main(words) == 0
    assert "continuing in runs/advise/0, with 2 trainings done before" in capsys.readouterr().out
    assert len(seen) == 5  # of four trainings, one twice
    assert Path("runs/advise/0/advice.json").is_file()
    other = [*words, "--lr", "0.1", "--folder", "runs/advise/0"]
    Path("runs/advise/0/advice.json").unlink()
    assert main(other) == 2
    assert "holds trainings with other options" in capsys.readouterr().err
