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
from fulgurite.probes.activations.activation_maps import ActivationMaps
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
    probe = Activations(["0"])
    seen = probe.compose(probe.observe(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), own, ["0"]), own)
    rows = [line for line in words(seen["0"].pixels) if line.startswith("image ")]
    assert rows == [name if labels is None else f"{name}, true dog" for name in row_names(own).values()]


@pytest.mark.parametrize(("shape", "size"), [((8, 3, 5, 5), (97, 97)), ((8, 2, 112, 56), (97, 49))])
def test_the_film_has_the_four_strongest_channels_of_each_layer_and_shows_growth(shape, size):
    count, _, height, width = shape
    images = torch.rand(2, 3, 16, 16)
    probe = Activations(["a", "b"], most=count)
    probe.sample = Sample(images, torch.tensor([1, 0]), ("cat", "dog"), torch.device("cpu"))
    maps = torch.rand(2, count, height, width) + 0.1
    for growth in (1.0, 4.0):
        layers = {
            name: ActivationMaps(torch.arange(count).repeat(2, 1), growth * own, growth * own.mean((2, 3)))
            for name, own in {"a": maps, "b": -maps}.items()
        }
        frames = probe.frames(layers, {})
        first = next(iter(frames))
        one = frames[first].row.maps["a"]
        assert one.shape == (1, *size)
        assert set(one.unique().tolist()) <= {0.0, *(growth * maps[0, :4]).unique().tolist()}
        assert frames[first].looks == {"a": "heat", "b": "signed"}
        probe.film.add(str(growth), frames)
    drawn = {}
    for scale in ("film", "epoch"):
        probe.film.scale = scale
        strip = probe.film.strip()
        assert strip is not None
        drawn[scale] = [float(look[first].float().mean()) for _, look in strip.looks]
        assert {"true dog", "a"} <= {*words(strip.pixels)}
    assert drawn["film"][1] > 1.5 * drawn["film"][0]
    assert drawn["epoch"][1] == pytest.approx(drawn["epoch"][0], rel=0.1)


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
    assert ("SilentUnits/film", 6) not in pictures  # the last chart holds all epochs


@pytest.mark.parametrize("kind", [Activations, SilentUnits])
def test_what_cannot_be_observed_ends_training_before_it_starts(kind: type, tmp_path: Path):
    with pytest.raises(ValueError, match="layers='head'; wanted a list of their paths"):
        kind("head")
    with pytest.raises(ValueError, match="no layer 'haed' in Theirs; nearest: head"):
        fitted(tmp_path, kind(["haed"], **SCALE))


def test_no_channels_are_no_picture():
    with pytest.raises(ValueError, match="most=0; wanted at least 1 channel"):
        Activations(most=0)
