"""`fit --dry-run` shows what would be trained, and writes nothing."""

import re
from pathlib import Path

import pytest
from class_folders import fill
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.models.networks import build


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


def shown(capsys: pytest.CaptureFixture, *words: str) -> dict[str, str]:
    """What it prints below each head."""
    assert main(["fit", *words, "--dry-run"]) == 0
    assert not list(Path.cwd().iterdir())
    parts = capsys.readouterr().out.strip().split("\n\n")
    return {part.partition(":")[0]: part for part in parts}


def test_a_dry_run_shows_everything_and_writes_nothing(capsys: pytest.CaptureFixture):
    parts = shown(
        capsys, "digits", "--epochs", "3", "--size", "8", "--budget", "0.1", "--network", "small_cnn"
    )
    assert list(parts) == ["data", "network", "parameter groups", "probes", "cost"]
    assert "1259 to train on, 179 to validate, to test 359; 1 x 8 x 8 pixels, 64 in a batch" in parts["data"]
    assert "SmallCNN, for one image" in parts["network"]
    assert "multiply-adds" in parts["network"]
    assert "learning rate 0.004, weight decay 0.01" in parts["parameter groups"]
    when = "(only after training|before training and every epoch)"
    line = rf"ClassImages: {when}, up to 64 images, within 10% of the training .*; a run takes about \S+ s"
    assert re.search(line, parts["probes"])
    assert "the 3 epochs" in parts["cost"]


def test_frozen_groups_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = fill(tmp_path / "photos")
    save_file(build("small_cnn", classes=3).state_dict(), tmp_path / "net.safetensors")
    words = ["--network", "small_cnn", "--weights", str(tmp_path / "net.safetensors"), "--size", "32"]
    words += ["--epochs", "1"]
    parts = shown(capsys, "finetune", "--path", str(folder), "--strategy", "linear", *words)
    assert "frozen at first" in parts["parameter groups"]
    assert "to test the validation images" in parts["data"]
    assert "the 1 epoch " in parts["cost"]


def test_mixed_images_that_the_loss_cannot_take_are_refused_by_a_dry_run(tmp_path: Path, capsys):
    save_file(build("small_cnn", classes=3).state_dict(), tmp_path / "net.safetensors")
    words = ["--network", "small_cnn", "--weights", str(tmp_path / "net.safetensors"), "--size", "32"]
    words += ["--path", str(fill(tmp_path / "photos")), "--augment", "mixup", "--dry-run"]
    assert main(["fit", "robust_folder", *words]) == 2
    assert "images mixed by mixup have shares of two classes, and the loss" in capsys.readouterr().err
    assert main(["fit", "folder", *words]) == 0


def test_a_dry_run_tells_the_cost_of_each_probe_and_what_the_budget_does(capsys: pytest.CaptureFixture):
    words = ["digits", "--size", "8", "--network", "small_cnn"]
    short = shown(capsys, *words, "--epochs", "1", "--budget", "0.1")["probes"].splitlines()[1:]
    assert all(re.search(r"; a run takes about [\d.e-]+ s", line) for line in short)
    names = [line.split(":")[0].strip() for line in short]
    assert {"Metrics", "Filters", "Saliency", "ClassImages", "Embeddings"} <= {*names}
    longer = shown(capsys, *words, "--epochs", "9999", "--budget", "0.1")["probes"]
    assert longer.count(": before training and every epoch") == len(names)
    assert "short" not in longer
    assert "left out" not in longer
    free = shown(capsys, *words, "--epochs", "1")["probes"]
    assert free.count("not measured") == 1
    assert free.splitlines()[-1].strip() == "no budget limits them, so their cost is not measured here"
    assert len(free.splitlines()) == len(names) + 2  # a head, and a line for each
