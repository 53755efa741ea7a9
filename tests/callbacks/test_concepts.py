"""Concept sheets during training: what they log, and refuse."""

from pathlib import Path

import pytest
import somebody
import torch

from fulgurite.callbacks.concepts import Concepts

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


def fitted(folder: Path, probe: Concepts) -> None:
    torch.manual_seed(0)
    somebody.quiet(folder, probe).fit(somebody.Theirs(), somebody.loader(), somebody.loader(12))


@pytest.mark.slow
def test_each_class_has_a_sheet_at_each_epoch_and_all_have_a_film(tmp_path: Path):
    fitted(tmp_path, Concepts(["blue", 0], count=3, **SCALE))
    pictures = somebody.images(tmp_path)
    for name in ("blue", "red"):
        assert {(f"Concepts/{name}", step) for step in (0, 3, 6)} <= set(pictures)
    assert ("Concepts/green", 6) not in pictures
    assert ("Concepts/film", 6) in pictures
    assert not torch.equal(pictures["Concepts/red", 0].float(), pictures["Concepts/red", 6].float())


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"targets": ["pink"]}, "no class 'pink' among 3"),
        ({"targets": [3]}, "no class 3 among 3"),
        ({"layer": "head"}, "layer 'head' outputs .*; wanted maps"),
        ({"count": 99}, "99 concepts of . channels of layer"),
        ({"layer": "haed"}, "no layer 'haed' in Theirs; nearest: head"),
        ({"images": 1, "targets": ["blue"]}, "none of 1 image is of class 'blue'"),
    ],
)
def test_what_cannot_be_factorised_ends_training_before_it_starts(wanted, complaint, tmp_path: Path):
    with pytest.raises(ValueError, match=complaint):
        fitted(tmp_path, Concepts(**wanted, **SCALE))


def test_no_concepts_are_no_sheet():
    with pytest.raises(ValueError, match="most=32, count=0; wanted at least 1"):
        Concepts(count=0)
    with pytest.raises(ValueError, match="targets='red'; wanted a list of classes"):
        Concepts("red")
    with pytest.raises(ValueError, match=r"crop=3; wanted a share of an image's side, 0\.02 to 1"):
        Concepts(crop=3)
