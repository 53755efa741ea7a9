"""Dreams and fooling images during training: what they log and refuse."""

from pathlib import Path

import pytest
import somebody
import torch

from fulgurite.callbacks.dreams import Dreams
from fulgurite.callbacks.fooling import Fooling
from fulgurite.callbacks.framework.film import Strip
from fulgurite.probes.feature_objectives import energy
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.style import LINE
from fulgurite.probes.synthesis.dreams import deep_dream
from fulgurite.probes.synthesis.features import values_of

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


def fitted(folder: Path, *probes, **options) -> somebody.Theirs:
    torch.manual_seed(0)
    model = somebody.Theirs()
    somebody.quiet(folder, *probes, **options).fit(model, somebody.loader(), somebody.loader(9))
    return model


def test_dreams_are_of_the_same_images_at_each_epoch_and_their_growth_is_logged(tmp_path: Path):
    class Keeps(Dreams):
        def observe(self, network, sample, subjects):
            self.shown = sample.images
            return super().observe(network, sample, subjects)

    probe = Keeps(["features.0"], steps=4, images=2, name="Dreams", **SCALE)
    model = fitted(tmp_path, probe)
    with frozen_eval(model, mean=somebody.MEAN, std=somebody.STD) as network:
        dreamed = deep_dream(network, probe.shown, "features.0", octaves=3, steps=4, seed=probe.seed)
        before, after = (values_of(network, energy("features.0"), own) for own in (probe.shown, dreamed))
    steps, values = zip(*somebody.scalars(tmp_path)["Dreams/features.0/energy"], strict=True)
    assert steps == (0, 3, 6)
    assert values[-1] == pytest.approx(float((after / before).mean()), rel=1e-4)
    assert values[-1] > 1
    assert ("Dreams/film", 6) in somebody.images(tmp_path)


def test_fooling_images_log_rate_steps_and_probability(tmp_path: Path):
    class Keeps(Fooling):
        def observe(self, network, sample, subjects):
            found = super().observe(network, sample, subjects)
            self.found = found
            return found

    probe = Keeps(confidence=0.6, steps=60, lr=0.05, name="Fooling", **SCALE)
    fitted(tmp_path, probe)
    strip = probe.film.strip()
    assert isinstance(strip, Strip)
    # a row for each class, its image and caption at their size
    assert {name: own.shape for name, own in strip.looks[0][1].items()} == dict.fromkeys(
        ("red", "green", "blue"), (3, 96 + 2 * LINE, 96)
    )
    numbers = somebody.scalars(tmp_path)
    every = list(probe.found.values())
    reached = [one for one in every if one.steps == one.steps]
    assert numbers["Fooling/rate"][-1][1] == pytest.approx(len(reached) / len(every))
    assert numbers["Fooling/probability"][-1][1] == pytest.approx(
        sum(one.probability for one in every) / len(every)
    )
    assert all(one.probability >= 0.6 for one in reached)
    assert reached
    median = torch.tensor([one.steps for one in reached]).median()
    assert numbers["Fooling/median steps"][-1][1] == median
    assert ("Fooling", 6) in somebody.images(tmp_path)


def test_where_no_class_is_reached_there_is_no_median(tmp_path: Path):
    fitted(tmp_path, Fooling(confidence=0.999999, steps=1, **SCALE))
    numbers = somebody.scalars(tmp_path)
    assert numbers["Fooling/rate"][-1][1] == 0
    assert "Fooling/median steps" not in numbers


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dreams("conv1"), "layers='conv1'; wanted a list of their paths"),
        (lambda: Dreams(octaves=0), "octaves=0, steps=10"),
        (lambda: Dreams(lr=0.0), "a positive rate"),
        (lambda: Fooling("red"), "wanted a list of the names of classes"),
        (lambda: Fooling(confidence=1.0), "a probability between 0 and 1"),
        (lambda: Fooling(most=0), "wanted at least 1 class"),
    ],
)
def test_an_invalid_probe_is_reported(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dreams(["featurs.0"], **SCALE), "no layer 'featurs.0' in Theirs; nearest: features.0"),
        (lambda: Fooling(layer="haed", **SCALE), "no layer 'haed' in Theirs; nearest: head"),
        (lambda: Fooling(["unicorn"], **SCALE), "no class 'unicorn'"),
    ],
)
def test_an_unusable_probe_is_reported_before_training(tmp_path: Path, make, words):
    with pytest.raises(ValueError, match=words):
        fitted(tmp_path, make())
