"""New runs by the command: numbered, named, on folders of images, and a failure leaves nothing."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import somebody
import torch
from PIL import Image

from fulgurite.cli import fit
from fulgurite.cli.command import main
from fulgurite.models import networks
from fulgurite.probes.style import theme_name
from fulgurite.recipes import finetune, finetune_digits, folder
from fulgurite.recipes.recipe import weights_follow
from fulgurite.recipes.run import Run, checked, read

SMALL = ["--epochs", "2", "--size", "8", "--batch_size", "128"]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


@pytest.mark.parametrize(("words", "theme"), [([], "light"), (["--theme", "dark"], "dark")])
def test_a_resumed_run_keeps_its_theme_unless_another_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], theme: str
):
    drawn = []
    monkeypatch.setattr(fit, "train", lambda *_, **__: drawn.append(theme_name()))
    Run("digits", {"epochs": 3}, {}, theme="light").write(tmp_path / "run")
    assert main(["fit", "digits", "--resume", "run", *words]) == 0
    assert drawn == [theme]


def test_a_run_of_an_earlier_version_is_dark_and_an_unknown_theme_is_refused():
    content = asdict(Run("digits", {}, {}))
    del content["theme"]
    assert checked(content).theme == "dark"
    for theme in ("blue", ["light"], None):
        with pytest.raises(ValueError, match=r"its theme is .*; wanted one of dark, light"):
            checked({**content, "theme": theme})


@pytest.mark.slow
def test_a_light_run_is_recorded_and_resumed_as_such(tmp_path: Path):
    words = ["fit", "digits", *SMALL, *QUIET, "--every", "0"]
    assert main([*words, "--epochs", "1", "--folder", "light", "--theme", "light"]) == 0
    assert read(tmp_path / "light").theme == "light"
    assert main([*words, "--epochs", "2", "--resume", "light"]) == 0
    assert read(tmp_path / "light").theme == "light"


@pytest.mark.slow
def test_the_last_checkpoint_is_that_of_the_last_epoch_though_another_was_better(tmp_path: Path):
    assert main(["fit", "digits", *SMALL, *QUIET, "--every", "0", "--epochs", "6", "--folder", "six"]) == 0
    last = torch.load(tmp_path / "six" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (last["epoch"], last["global_step"]) == (5, 60)


def test_without_validation_the_best_weights_are_the_last(tmp_path: Path):
    words = [*SMALL, *QUIET, "--every", "0", "--trainer.limit_val_batches", "0", "--folder", "blind"]
    assert main(["fit", "digits", *words]) == 0
    assert main(["test", "blind", *QUIET]) == 0


def test_runs_are_numbered(tmp_path: Path):
    for _ in range(2):
        assert main(["fit", "digits", *SMALL, *QUIET, "--every", "0", "--epochs", "1"]) == 0
    assert {path.name for path in (tmp_path / "runs" / "digits").iterdir()} == {"0", "1"}


def test_where_a_checkpoint_brings_the_weights_none_are_fetched_taught_or_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("weights that nobody needs")

    fetched = ((networks, "published"), (finetune_digits, "_taught"))
    for room, name in (*fetched, (finetune, "fit_head"), (folder, "fit_head")):
        monkeypatch.setattr(room, name, asked)
    own = {"path": str(pictures(tmp_path / "pets")), "size": 32, "network": "torchvision/squeezenet1_1"}
    builds = [
        lambda: folder.recipe(**own, pretrained=True),
        lambda: finetune.recipe(**own, fitted_head=True),
        lambda: finetune_digits.recipe(size=8),
    ]
    for build_ in builds:
        with weights_follow():
            build_()
        with pytest.raises(AssertionError, match="nobody needs"):
            build_()


def test_a_failure_before_the_first_epoch_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = [
        "fit",
        "folder",
        "--path",
        str(pictures(tmp_path / "pets")),
        "--network",
        "small_vgg",
        "--size",
        "32",
    ]
    assert main([*words, "--score_layer", "classifer", "--folder", "broken", *QUIET, "--workers", "0"]) == 2
    assert "no layer 'classifer'" in capsys.readouterr().err
    assert not Path("broken").exists()


def pictures(folder: Path, count: int = 10) -> Path:
    for number, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True)
        for place in range(count):
            Image.new("RGB", (40, 30), (200 * number, 20 * place, 90)).save(folder / name / f"{place}.png")
    return folder


@pytest.mark.parametrize("network", ["small_vgg", pytest.param("timm/resnet10t", marks=pytest.mark.slow)])
def test_a_folder_of_pictures_is_trained_on_and_probed(tmp_path: Path, network: str):
    words = [
        "fit",
        "folder",
        "--path",
        str(pictures(tmp_path / "pets")),
        "--network",
        network,
        "--size",
        "32",
        "--budget",
        "null",
    ]
    assert (
        main([*words, "--epochs", "1", "--workers", "0", "--batch_size", "4", *QUIET, "--folder", "pets"])
        == 0
    )
    assert {tag for tag, _ in somebody.images(Path("pets"))} >= {"Saliency", "ClassImages"}


@pytest.mark.slow
def test_the_default_recipe_reaches_97_percent(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["fit", "digits", "--every", "0", *QUIET]) == 0
    accuracy = re.search(r"test/accuracy\s+│\s+([\d.]+)", capsys.readouterr().out)
    assert float(accuracy[1]) >= 0.97


def test_other_files_in_the_folder_of_a_run_are_named_and_kept(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    words = ["fit", "digits", *SMALL, *QUIET, "--every", "0", "--folder", "mine"]
    Path("mine").mkdir()
    for name in ("notes.txt", "test.json"):
        Path("mine", name).write_text("of somebody else")
    assert main(words) == 2
    assert "mine holds test.json, which is of no run there and would be" in capsys.readouterr().err
    assert sorted(file.name for file in Path("mine").iterdir()) == ["notes.txt", "test.json"]
    Path("mine", "test.json").unlink()
    with caplog.at_level("INFO"):
        assert main(words) == 0
    assert "mine holds other files, which are not changed: notes.txt" in caplog.messages
    assert Path("mine", "notes.txt").read_text() == "of somebody else"
