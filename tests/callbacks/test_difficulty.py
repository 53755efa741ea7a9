"""Difficulty during training: the planted hard class is the hardest, and its images are shown."""

from pathlib import Path

import pytest
import somebody
import torch
from torch.utils.data import DataLoader

from fulgurite.callbacks.difficulty import Difficulty

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


class HardGreen(somebody.Blobs):
    """Half of the images of the second class look like the third; they cannot be distinguished."""

    def __init__(self):
        super().__init__(60)
        own, other = ((self.labels == label).nonzero()[:, 0] for label in (1, 2))
        self.images = self.images.clone()
        count = len(own) // 2
        self.images[own[:count]] = self.images[other[:count]]

    def masks(self, indices):
        return torch.stack([torch.arange(144).view(12, 12) < 12 + index for index in indices])


@pytest.mark.slow
def test_the_class_that_cannot_be_distinguished_is_the_hardest(tmp_path: Path):
    torch.manual_seed(0)
    probe = Difficulty(most=2, pictures=tmp_path / "pictures", **SCALE)
    logged = []
    compose = probe.compose
    probe.compose = lambda *args: logged.append(compose(*args)) or logged[-1]
    data = DataLoader(HardGreen(), batch_size=8)
    somebody.quiet(tmp_path, probe, max_epochs=12).fit(somebody.Theirs(), somebody.loader(), data)
    classes, confusions = logged[-1]["classes"].rows, logged[-1]["confusions"].rows
    assert classes[0][0] == "green"
    assert 0.4 < float(classes[0][2]) < 0.6
    assert classes[0][6] == "blue"
    assert confusions[0][:2] == ["green", "blue"]
    numbers = somebody.scalars(tmp_path)
    assert numbers["Difficulty/accuracy/hardest class"][-1][1] == pytest.approx(
        float(classes[0][2]), abs=1e-3
    )
    assert numbers["Difficulty/accuracy/easiest class"][-1][1] > 0.9
    pictures = somebody.images(tmp_path)
    # three plots below each other: by class, by texture and, as there are masks, by size
    assert pictures["Difficulty", 36].shape[1] > 3 * 200
    assert ("Difficulty/images", 36) in pictures


def test_no_class_and_no_row_are_refused():
    with pytest.raises(ValueError, match="most=0, rows=50; wanted at least 1 class"):
        Difficulty(most=0)
