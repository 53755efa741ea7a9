"""Activation maps and silent units during training: what they log, and refuse."""

from pathlib import Path

import pytest
import somebody
import torch
from drawn_words import words
from torch import nn

from fulgurite.callbacks.activations import Activations
from fulgurite.callbacks.framework.captions import row_names
from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.silent_units import SilentUnits
from fulgurite.probes.activations.silent_units import unit_activity
from fulgurite.probes.frozen_eval import frozen_eval

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


def fitted(folder: Path, *probes, model: somebody.Theirs | None = None, count: int = 9) -> somebody.Theirs:
    torch.manual_seed(0)
    model = model or somebody.Theirs()
    somebody.quiet(folder, *probes).fit(model, somebody.loader(), somebody.loader(count))
    return model


def test_each_layer_has_a_picture_at_each_epoch_and_all_have_a_film(tmp_path: Path):
    fitted(tmp_path, Activations(["features.0", "features.2", "head"], most=3, **SCALE))
    pictures = somebody.images(tmp_path)
    for layer in ("features.0", "features.2", "head"):
        for step in (0, 3, 6):
            assert pictures[f"Activations/{layer}", step].float().std() > 0
    assert not torch.equal(
        pictures["Activations/features.0", 0].float(), pictures["Activations/features.0", 6].float()
    )
    assert ("Activations/film", 6) in pictures


@pytest.mark.parametrize("labels", [torch.tensor([1, 1]), None])
def test_rows_of_activations_have_the_names_of_other_pictures(labels: torch.Tensor | None):
    own = Sample(torch.rand(2, 3, 8, 8), labels, ("cat", "dog"), torch.device("cpu"))
    seen = Activations(["0"]).observe(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), own, ["0"])
    rows = [line for line in words(seen["0"].pixels) if line.startswith("image ")]
    assert rows == [name if labels is None else f"{name}, true dog" for name in row_names(own).values()]


class KeepsSample(SilentUnits):
    """Keeps the images that it looked at."""

    def observe(self, network, sample, subjects):
        self.shown = sample.images
        return super().observe(network, sample, subjects)


def test_silent_units_are_counted_over_the_whole_sample_at_each_epoch(tmp_path: Path):
    model = somebody.Theirs()
    model.features[2] = nn.ReLU6()
    with torch.no_grad():  # two channels that no training revives: no gradient gets through
        model.features[1].weight[[1, 3]] = 0
        model.features[1].bias[[1, 3]] = -5
    probe = KeepsSample(["features.2", "head"], name="SilentUnits", **SCALE)
    fitted(tmp_path, probe, model=model, count=300)
    numbers = somebody.scalars(tmp_path)
    assert [value for _, value in numbers["SilentUnits/silent/features.2"]] == pytest.approx([2 / 6] * 3)
    with frozen_eval(model, mean=somebody.MEAN, std=somebody.STD) as network:
        expected = unit_activity(network, probe.shown, ["features.2", "head"])
    assert expected["features.2"].images == len(probe.shown) == 300
    last = {tag: values[-1][1] for tag, values in numbers.items()}
    assert last["SilentUnits/sparsity/features.2"] == pytest.approx(expected["features.2"].mean_sparsity)
    assert last["SilentUnits/saturation/features.2"] == pytest.approx(expected["features.2"].mean_saturation)
    assert "SilentUnits/saturation/head" not in numbers
    assert [name for name, _ in probe.memory.last[LOOKS]] == ["start", "epoch 1", "epoch 2"]
    pictures = somebody.images(tmp_path)
    assert {("SilentUnits", step) for step in (0, 3, 6)} <= set(pictures)
    assert ("SilentUnits/film", 6) in pictures


@pytest.mark.parametrize("kind", [Activations, SilentUnits])
def test_what_cannot_be_observed_ends_training_before_it_starts(kind: type, tmp_path: Path):
    with pytest.raises(ValueError, match="layers='head'; wanted a list of their paths"):
        kind("head")
    with pytest.raises(ValueError, match="no layer 'haed' in Theirs; nearest: head"):
        fitted(tmp_path, kind(["haed"], **SCALE))


def test_no_channels_are_no_picture():
    with pytest.raises(ValueError, match="most=0; wanted at least 1 channel"):
        Activations(most=0)
