"""Yosinski's study: copied and frozen stages, halves of classes, marked effects, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_words import words

from fulgurite.cli.command import main
from fulgurite.data.class_halves import Half, halves, in_memory
from fulgurite.data.digits import Digits
from fulgurite.models.networks import build
from fulgurite.models.stages import stages_of
from fulgurite.recipes.transferability import KINDS, Copied, Plan, Transferability, copied


def test_the_classes_are_split_into_two_tasks_by_seed():
    first, second = halves(9, seed=0)
    assert (len(first), len(second)) == (5, 4)
    assert sorted(first + second) == list(range(9))
    assert halves(9, seed=0) == (first, second) != halves(9, seed=1)
    with pytest.raises(ValueError, match="classes: 3, too few for two tasks of at least two each"):
        halves(3, seed=0)


def test_a_half_holds_the_images_of_its_classes_under_new_numbers():
    data = Digits(size=8, shift=0, noise=0)
    half = Half(data, in_memory(data), [7, 2], seed=0)
    assert half.classes == ("7", "2")
    for part, whole in zip(half.parts(), data.parts(), strict=True):
        assert len(part) == int(((whole.labels == 7) | (whole.labels == 2)).sum())
        assert (part.labels == 0).sum() == (whole.labels == 7).sum()
    own, whole = half.parts()[0], data.parts()[0]
    seven = whole.images[whole.labels == 7][0]
    assert torch.allclose(own.images[own.labels == 0][0].float() / 255, seven, atol=1 / 255)


def test_the_first_stages_are_copied_with_their_statistics_and_no_others():
    torch.manual_seed(0)
    one, other = (build("small_vgg", classes=count, channels=1) for count in (3, 5))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    one.norm2.running_mean.fill_(7)
    stages = stages_of(other, shape=(1, 16, 16))
    copied(other, one, stages[:2])
    for name, value in other.state_dict().items():
        source = one.state_dict() if name.startswith(("conv1", "norm1", "conv2", "norm2")) else before
        assert torch.equal(value, source[name]), name
    assert float(other.norm2.running_mean[0]) == 7
    with pytest.raises(ValueError, match=r"classifier\.weight is not of the same shape in both networks"):
        copied(other, one, stages)


def test_frozen_stages_do_not_move_and_fine_tuned_ones_do():
    data = Digits(size=8, shift=0, noise=0, per_class=5)
    half = Half(data, in_memory(data), [0, 1, 2], seed=0)
    plan = Plan("small_vgg", epochs=1)
    network = plan.fresh(half, 0)
    stages = stages_of(network, shape=(1, 8, 8))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert 0 <= plan.fit(network, half, 0, stages[:2]) <= 1
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(("conv1", "norm1", "conv2", "norm2")) for name in moved)
    assert {"conv3.weight", "hidden.weight", "classifier.weight"} <= moved
    plan.fit(network := plan.fresh(half, 0), half, 0)
    assert not torch.equal(network.conv1.weight, before["conv1.weight"])


def known(same: list[float], other: list[float]) -> Transferability:
    """Two stages; nothing happens at the first."""
    base = [0.90, 0.91, 0.92]
    found = {Copied(kind, 1): base for kind in KINDS} | {Copied(kind, 2): base for kind in KINDS}
    return Transferability(
        ("low", "high"), tuple(base), found | {Copied("BnB", 2): same, Copied("AnB", 2): other}
    )


def test_dip_and_drop_are_marked_where_the_intervals_allow_it():
    assert known([0.90, 0.91, 0.92], [0.90, 0.91, 0.92]).marks() == {}
    assert known([0.80, 0.82, 0.83], [0.81, 0.82, 0.82]).marks() == {2: ["co-adaptation dip"]}
    assert known([0.90, 0.91, 0.92], [0.60, 0.62, 0.61]).marks() == {2: ["generality drop"]}
    assert known([0.60, 0.95, 0.92], [0.90, 0.40, 0.85]).marks() == {}
    found = known([0.80, 0.82, 0.83], [0.50, 0.52, 0.51])
    assert found.marks() == {2: ["co-adaptation dip", "generality drop"]}
    assert found.gain("BnB", 2).mean == pytest.approx(-0.28 / 3)
    assert any("-30.7" in line and "co-adaptation dip, generality drop" in line for line in found.lines())
    assert "bars: 95 % intervals of the mean of AnB and AnB+ over 3 seeds (Student's t)" in " ".join(
        words(found.picture())
    )
    # the axis begins at chance, where a line is drawn
    assert not torch.equal(replace(found, chance=0.5).picture(), found.picture())


def test_the_command_writes_the_curve_after_each_seed(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["transferability", "digits", "--size", "8", "--network", "small_cnn", "--epochs", "1"]
    monkeypatch.setattr(
        Plan, "fit", lambda plan, network, data, seed, frozen=(): 0.5 + len(frozen) / 10 + seed % 7 / 100
    )
    assert main([*words, "--seeds", "3"]) == 0
    reported = json.loads(Path("transferability.json").read_text())
    assert reported["stages"] == ["conv1|conv2", "hidden"]
    assert len(reported["from scratch"]) == len(reported["task A"]) == 3
    assert len(reported["copied"]) == 8
    printed = capsys.readouterr().out
    assert "transferability.png: " in printed
    assert "2 seeds" in printed
    assert "Test accuracy on task B, 3 seeds" in printed
    assert main([*words, "--seeds", "2", "--kinds", "AnB,AnB+"]) == 0
    assert {one["kind"] for one in json.loads(Path("transferability.json").read_text())["copied"]} == {
        "AnB",
        "AnB+",
    }
    printed = capsys.readouterr().out
    assert "BnB" not in printed
    assert "AnB+: first stages of a network of another task, fine-tuned" in printed
    assert main([*words, "--kinds", "AnC"]) == 2
    assert "kinds AnC; wanted some of BnB, BnB+, AnB, AnB+" in capsys.readouterr().err
    assert main([*words, "--images", "300"]) == 2
    assert "--images 300 is of shapes; digits are used as a whole" in capsys.readouterr().err
    assert main([*words, "--seeds", "1"]) == 2
    assert "seeds=1; wanted 2 or more, for intervals" in capsys.readouterr().err


def test_too_few_classes_and_a_source_of_other_images_are_reported(tmp_path: Path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for place in range(5):
            Image.new("RGB", (9, 9), (10 * place, 0, 0)).save(tmp_path / "photos" / name / f"{place}.png")
    assert main(["transferability", "photos", "--size", "8"]) == 2
    assert "classes: 3, too few for two tasks" in capsys.readouterr().err
    words = [
        "transferability",
        "photos",
        "--source",
        "digits",
        "--size",
        "8",
        "--epochs",
        "1",
        "--seeds",
        "2",
    ]
    monkeypatch.setattr(Plan, "fit", lambda *_: 0.5)
    assert main(words) == 2
    assert "is not of the same shape in both networks" in capsys.readouterr().err
