"""Health during training: numbers and curves, and what cannot be computed."""

from pathlib import Path

import pytest
import somebody
import torch
from drawn_words import words_of
from torch import nn
from torch.utils.data import DataLoader

from fulgurite.callbacks.health import Health
from fulgurite.probes.moments import Moments
from fulgurite.probes.representation.calibration import calibration, scaled_by_halves
from fulgurite.probes.representation.health import effective_rank, neural_collapse

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
    pictures = {(name, step) for step in (0, 3, 6) for name in ("Health", "Health/reliability")}
    assert pictures <= set(somebody.images(tmp_path))


def test_temperature_scaling_is_logged_where_some_images_are_misclassified(tmp_path: Path, monkeypatch):
    printed = words_of(Health, monkeypatch)
    data = somebody.Blobs(24)
    data.labels[torch.tensor([4, 11])] = 0
    module = somebody.Theirs().eval()
    with torch.no_grad():  # three times too sure of the colours
        module.features, module.head = nn.Flatten(), nn.Linear(432, 3, bias=False)
        module.head.weight.copy_(torch.eye(3).repeat_interleave(144, dim=1) / 5)
    probe = somebody.quiet(tmp_path, Health(layer="head", **SCALE))
    probe.validate(module, DataLoader(data, batch_size=8), verbose=False)
    numbers, name = somebody.scalars(tmp_path), "Health/expected calibration error"
    with torch.no_grad():
        logits = module(torch.stack([image for image, _ in data]))
    scaled = calibration(scaled_by_halves(logits, data.labels).softmax(1), data.labels).error
    assert numbers[f"{name} after temperature scaling"][0][1] == pytest.approx(scaled, abs=1e-5)
    assert numbers[name][0][1] == pytest.approx(2 / 24, abs=1e-3)
    # in the legend of the curves, and over the diagrams; whole
    assert printed.count("as trained") == printed.count("temperature scaled") == 2


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
