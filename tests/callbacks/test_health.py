"""Health during training: numbers and curves, and what cannot be computed."""

from pathlib import Path

import pytest
import somebody
import torch
from torch import nn

from fulgurite.callbacks.health import Health
from fulgurite.probes.moments import Moments
from fulgurite.probes.representation.health import calibration, effective_rank, neural_collapse

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}
NAMES = {
    *("effective rank", "intrinsic dimension", "expected calibration error"),
    *("NC1", "NC2", "NC3", "NC4"),
}


def fitted(folder: Path, probe: Health) -> somebody.Theirs:
    torch.manual_seed(0)
    module = somebody.Theirs()
    somebody.quiet(folder, probe).fit(module, somebody.loader(), somebody.loader(24))
    return module.eval()


def test_each_epoch_has_the_numbers_of_the_definitions_and_their_curves(tmp_path: Path):
    module = fitted(tmp_path, Health(**SCALE))
    numbers, blobs = somebody.scalars(tmp_path), somebody.Blobs(24)
    assert {name.removeprefix("Health/") for name in numbers if name.startswith("Health/")} == NAMES
    images = torch.stack([image for image, _ in blobs])
    with torch.no_grad():
        codes, logits = module.features(images).flatten(1), module(images)
    # 150 numbers of 24 images, where the callback turns codes and weights into what they span
    moments = Moments([("", "")], classes=3)
    moments.update(torch.arange(24), {"": codes}, blobs.labels)
    expected = neural_collapse(moments, "", module.head.weight.detach())
    last = {name: numbers[f"Health/{name}"][-1][1] for name in NAMES}
    assert [last[name] for name in ("NC1", "NC2", "NC3")] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert last["effective rank"] == pytest.approx(effective_rank(moments.covariance("")), rel=1e-3)
    error = calibration(logits.softmax(1), blobs.labels).error
    assert last["expected calibration error"] == pytest.approx(error, abs=1e-3)
    assert {("Health", step) for step in (0, 3, 6)} <= set(somebody.images(tmp_path))


def test_codes_that_are_all_equal_have_the_numbers_that_there_are(tmp_path: Path):
    module = somebody.Theirs()
    nn.init.zeros_(module.features[1].weight)
    somebody.quiet(tmp_path, Health(**SCALE)).validate(module, somebody.loader(24), verbose=False)
    numbers = somebody.scalars(tmp_path)
    assert numbers["Health/effective rank"][0][1] == 0
    assert "Health/NC1" not in numbers
    assert "Health/intrinsic dimension" not in numbers


def test_another_layer_than_there_is_ends_training_before_it_starts(tmp_path: Path):
    with pytest.raises(ValueError, match="no layer 'haed' in Theirs"):
        fitted(tmp_path, Health(layer="haed", **SCALE))
