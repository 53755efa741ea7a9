"""Influence during training: training images of the predicted class raise its margin."""

from pathlib import Path

import pytest
import somebody
import torch
from torch.utils.data import DataLoader

from fulgurite.callbacks.training_influence import TrainingInfluence

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


@pytest.mark.slow
def test_training_images_of_the_class_raise_its_margin(tmp_path: Path):
    torch.manual_seed(0)
    probe = TrainingInfluence(k=3, training=24, images=4, **SCALE)
    seen = []
    picture = probe._picture
    probe._picture = lambda *args: seen.append(args) or picture(*args)
    somebody.quiet(tmp_path, probe, max_epochs=6).fit(
        somebody.Theirs(), somebody.loader(24), DataLoader(somebody.Blobs(9), batch_size=3)
    )
    found, classes, _ = seen[-1]
    assert found.shape == (4, 24)
    labels = probe.training_sample.labels
    for row, label in zip(found, classes.tolist(), strict=True):
        assert row[labels == label].sum() > 0
        assert int(labels[row.argmax()]) == label
    shown = somebody.images(tmp_path)
    assert {step for tag, step in shown if tag == "TrainingInfluence"} >= {0}
    assert shown["TrainingInfluence", 0].shape[2] > 7 * 60


def test_pictures_are_written_to_the_given_folder(tmp_path: Path):
    probe = TrainingInfluence(training=6, images=2, pictures=str(tmp_path / "pictures"), **SCALE)
    somebody.quiet(tmp_path, probe, max_epochs=1).fit(
        somebody.Theirs(), somebody.loader(9), somebody.loader(9)
    )
    assert (tmp_path / "pictures" / "TrainingInfluence.png").exists()


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="k=0, training=500; wanted at least 1 training image"):
        TrainingInfluence(k=0)
