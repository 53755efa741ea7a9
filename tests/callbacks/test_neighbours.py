"""Nearest neighbours during training: numbers and pictures, and what is refused."""

from pathlib import Path

import pytest
import somebody
import torch
from drawn_words import words_of

from fulgurite.callbacks.neighbours import Neighbours
from fulgurite.probes.representation.neighbours import knn_accuracy, nearest_neighbours

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


def fitted(folder: Path, probe: Neighbours) -> None:
    torch.manual_seed(0)
    somebody.quiet(folder, probe).fit(somebody.Theirs(), somebody.loader(), somebody.loader(24))


def test_each_epoch_has_a_picture_and_the_accuracy_by_codes_and_by_pixels(tmp_path: Path, monkeypatch):
    printed = words_of(Neighbours, monkeypatch)
    fitted(tmp_path, Neighbours(k=3, queries=4, metric="l2", **SCALE))
    pictures, numbers = somebody.images(tmp_path), somebody.scalars(tmp_path)
    assert {("Neighbours", step) for step in (0, 3, 6)} <= set(pictures)
    assert ("Neighbours/film", 6) in pictures
    assert " ".join(printed).count("L2 distance") == 3 * 2
    blobs = somebody.Blobs(24)
    expected = knn_accuracy(nearest_neighbours(blobs.images.flatten(1), k=3, metric="l2"), blobs.labels)
    of_pixels = [value for _, value in numbers["Neighbours/kNN accuracy/pixels"]]
    assert of_pixels == pytest.approx([expected] * 3)
    for name in ("codes", "pixels"):
        found = [numbers[f"Neighbours/recall at {k}/{name}"] for k in (1, 3)]
        assert all(0 <= one[1] <= three[1] <= 1 for one, three in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"images": 3, "k": 3}, "3 images for 3 neighbours of each; wanted at least 4"),
        ({"layer": "haed"}, "no layer 'haed' in Theirs; nearest: head"),
    ],
)
def test_what_has_no_neighbours_ends_training_before_it_starts(wanted, complaint, tmp_path: Path):
    with pytest.raises(ValueError, match=complaint):
        fitted(tmp_path, Neighbours(**wanted, **SCALE))


def test_no_neighbours_are_no_picture():
    with pytest.raises(ValueError, match="k=0, queries=8; wanted at least 1"):
        Neighbours(k=0)
