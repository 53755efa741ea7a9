"""Accuracy on other data sets, and shape bias."""

from pathlib import Path

import pytest
import somebody
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.framework.sample import CHUNK, Sample
from fulgurite.callbacks.split_accuracy import SplitAccuracy
from fulgurite.data.shapes import Shapes

CLASSES = ("red", "green", "blue")


class Brightest(nn.Module):
    """Answers by the channel that is brightest on average."""

    def forward(self, images):
        return images.mean((2, 3))


def coloured(answers: list[int], labels: list[int]) -> TensorDataset:
    images = torch.zeros(len(answers), 3, 4, 4)
    images[torch.arange(len(answers)), answers] = 0.5
    return TensorDataset(images, torch.tensor(labels))


def looked(probe: SplitAccuracy, over: TensorDataset) -> dict:
    sample = Sample(*over.tensors, CLASSES, torch.device("cpu"))
    network = Brightest()
    probe.check(network, sample)
    subjects = probe.subjects(network, sample)
    seen = {
        name: own
        for part in (subjects[::2], subjects[1::2])
        for name, own in probe.observe(network, sample, part).items()
    }
    return dict(probe.compose(seen, sample))


def test_each_data_set_has_its_accuracy_in_chunks_too():
    many = coloured([0] * (CHUNK + 5), [0] * CHUNK + [1] * 5)
    seen = looked(
        SplitAccuracy({"other": many, "third": coloured([2, 1], [2, 0])}, images=None),
        coloured([0, 1, 2], [0, 1, 1]),
    )
    assert set(seen) == {"", "accuracy/validation", "accuracy/other", "accuracy/third"}
    assert seen["accuracy/validation"].value == pytest.approx(2 / 3)
    assert seen["accuracy/other"].value == pytest.approx(CHUNK / (CHUNK + 5))
    assert seen["accuracy/third"].value == 0.5


def test_cue_conflicts_have_a_shape_bias():
    conflict = coloured([0, 1, 2, 0], [0, 1, 1, 2])
    conflict.cue_labels = lambda ids: torch.tensor([1, 2, 2, 1])[list(ids)]
    seen = looked(SplitAccuracy({"conflict": conflict}), coloured([0], [0]))
    assert seen["shape bias/conflict"].value == pytest.approx(2 / 3)  # two by shape, one by texture
    assert seen["accuracy/conflict"].value == 0.5
    conflict.cue_labels = lambda ids: torch.tensor([1, 2, 1, -1])[list(ids)]
    seen = looked(SplitAccuracy({"test": conflict}), coloured([0], [0]))
    assert set(seen) == {
        "",
        "accuracy/validation",
        "accuracy/test",
    }  # some agree, one says nothing


def test_what_cannot_be_measured_is_reported():
    with pytest.raises(ValueError, match="named nothing; wanted at least one"):
        SplitAccuracy({})
    with pytest.raises(ValueError, match="none called validation"):
        SplitAccuracy({"validation": coloured([0], [0])})
    with pytest.raises(ValueError, match="'bare' have no labels"):
        looked(SplitAccuracy({"bare": TensorDataset(torch.rand(2, 3, 4, 4))}), coloured([0], [0]))


def test_it_is_logged_at_each_epoch(tmp_path: Path):
    data = Shapes(classes=3, images=12, held_out=12, size=16, shortcut=0.9)
    data.setup()
    images = data.test.scenes(range(12)).images[:, :, 2:14, 2:14]
    other = TensorDataset(images, data.test.labels)
    probe = SplitAccuracy({"other": other}, on_error="raise", mean=somebody.MEAN, std=somebody.STD)
    loader = somebody.loader()
    somebody.quiet(tmp_path, probe, max_epochs=2).fit(somebody.Theirs(), loader, loader)
    numbers = somebody.scalars(tmp_path)
    assert (
        len(numbers["SplitAccuracy/accuracy/other"]) == len(numbers["SplitAccuracy/accuracy/validation"]) == 3
    )


def test_its_curves_begin_at_chance_and_have_the_intervals_of_their_images(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "fulgurite.callbacks.split_accuracy.line_plot",
        lambda lines, **how: asked.update(how, lines=lines) or torch.zeros(3, 4, 4, dtype=torch.uint8),
    )
    conflict = coloured([0, 1, 2, 0], [0, 1, 1, 2])
    conflict.cue_labels = lambda ids: torch.tensor([1, 2, 2, 1])[list(ids)]
    probe = SplitAccuracy({"conflict": conflict})
    older = {"accuracy/validation": 1.0, "accuracy/conflict": 0.75}  # of a checkpoint without counts
    probe.memory.last[LOOKS] = [(0.0, older)]
    looked(probe, coloured([0, 1], [0, 0]))
    assert asked["chance"] == pytest.approx(1 / 3)
    assert asked["lines"]["validation"] == [(0.0, 1.0), (0.0, 0.5)]
    # of four answers, two are by the shape and one by the texture
    assert asked["images"] == {"validation": [2, 2], "conflict": [4, 4], "shape bias/conflict": [3]}
