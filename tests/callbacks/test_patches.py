"""Strongest patches during training: what they log, and refuse."""

from pathlib import Path

import pytest
import somebody
import torch
from torch import nn

from fulgurite.callbacks.patches import Patches
from fulgurite.probes.activations.patches import class_purity
from fulgurite.probes.activations.top_responses import top_responses
from fulgurite.probes.frozen_eval import frozen_eval

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


class KeepsSample(Patches):
    """Keeps the images that it looked at."""

    def observe(self, network, sample, subjects):
        self.shown = sample
        return super().observe(network, sample, subjects)


def fitted(folder: Path, probe: Patches, count: int = 20) -> nn.Module:
    torch.manual_seed(0)
    model = somebody.Theirs()
    somebody.quiet(folder, probe).fit(model, somebody.loader(), somebody.loader(count))
    return model


def test_patches_over_all_chunks_of_the_sample_at_each_epoch(tmp_path: Path):
    probe = KeepsSample(["features.0"], most=3, directions=5, k=6, name="Patches", **SCALE)
    model = fitted(tmp_path, probe, count=300)  # two chunks
    with frozen_eval(model, mean=somebody.MEAN, std=somebody.STD) as network:
        found = top_responses(network, probe.shown.images, ["features.0"], directions=5, k=6)["features.0"]
    labels = probe.shown.labels[found.top.ids]
    numbers = somebody.scalars(tmp_path)
    assert len(numbers["Patches/purity/features.0"]) == 3
    assert numbers["Patches/purity/features.0"][-1][1] == pytest.approx(class_purity(labels[:6]))
    last = numbers["Patches/purity of directions/features.0"][-1][1]
    assert last == pytest.approx(class_purity(labels[6:]))
    pictures = somebody.images(tmp_path)
    assert {("Patches/features.0", step) for step in (0, 3, 6)} <= set(pictures)
    assert pictures["Patches/features.0", 6].shape[2] > 2 * 6 * 64  # channels next to directions
    assert ("Patches/film", 6) in pictures


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"layers": ["head"]}, r"layer 'head' \(Linear\) has no spatial extent: it outputs \(3,\)"),
        (
            {"layers": ["features.0"], "units": [6]},
            "unit 6 of layer 'features.0'; wanted channels from 0 to 5",
        ),
        ({"layers": ["haed"]}, "no layer 'haed' in Theirs; nearest: head"),
        ({"k": 21}, "20 images for 21 patches of each unit"),
    ],
)
def test_what_cannot_be_found_ends_training_before_it_starts(wanted: dict, complaint: str, tmp_path: Path):
    with pytest.raises(ValueError, match=complaint):
        fitted(tmp_path, Patches(**wanted, **SCALE))


def test_no_patches_are_no_picture():
    with pytest.raises(ValueError, match="most=0, directions=8, k=8; wanted at least 1"):
        Patches(most=0)
