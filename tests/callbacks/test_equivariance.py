"""Invariance and equivariance during training: numbers, pictures, and what is refused."""

from pathlib import Path

import pytest
import somebody
import torch
from drawn_words import words_of

from fulgurite.callbacks.equivariance import Equivariance
from fulgurite.callbacks.invariance import Invariance
from fulgurite.models.networks import normalised
from fulgurite.probes.representation.equivariance import equivariance
from fulgurite.probes.representation.invariance import INVARIANCE, invariance

SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


def test_the_figures_are_those_of_the_functions_on_the_sample(tmp_path: Path, monkeypatch):
    printed = words_of(Invariance, monkeypatch)
    torch.manual_seed(0)
    model = somebody.Theirs()
    probes = [
        Invariance(["vflip"], images=None, **SCALE),
        Equivariance(["vflip"], images=None, fitted=6, kernels=[1], every=2, **SCALE),
    ]
    somebody.quiet(tmp_path, *probes).fit(model, somebody.loader(6), somebody.loader(24))
    pictures, numbers = somebody.images(tmp_path), somebody.scalars(tmp_path)
    assert {"vflip: invariance", "vflip: equivariance"} <= {*printed}
    assert {("Invariance", step) for step in (0, 1, 2)} | {("Equivariance", 2)} <= set(pictures)
    assert ("Equivariance", 1) not in pictures
    blobs, training = somebody.Blobs(24), somebody.Blobs(6)
    network = normalised(model, somebody.MEAN, somebody.STD)
    (layer,) = {tag.rpartition("/")[2] for tag in numbers if tag.startswith("Invariance/invariance/vflip/")}
    found = invariance(network, blobs.images, ["vflip"], [layer])["vflip"][layer][INVARIANCE]
    assert numbers[f"Invariance/invariance/vflip/{layer}"][-1][1] == pytest.approx(found.score, abs=1e-5)
    fit, test = (training.images, training.labels), (blobs.images, blobs.labels)
    bars = equivariance(network, fit, test, ["vflip"], layers=[layer], kernels=[1]).bars("vflip")
    for kind, (value,) in bars.items():
        assert numbers[f"Equivariance/vflip/{kind}/{layer}"][-1][1] == pytest.approx(value)


@pytest.mark.parametrize("kind", [Invariance, Equivariance])
def test_what_cannot_be_transformed_is_refused_at_once(kind):
    with pytest.raises(ValueError, match="no transformation 'mirror'"):
        kind(["mirror"])
    with pytest.raises(ValueError, match="wanted a list of names"):
        kind("hflip")
    with pytest.raises(ValueError, match="wanted a list of their paths"):
        kind(layers="conv")


def test_filters_are_odd_and_fitted_to_several_images():
    for wrong in ({"fitted": 1}, {"kernels": []}, {"kernels": [2]}):
        with pytest.raises(ValueError, match="wanted at least 2 images to fit to, and odd sides"):
            Equivariance(**wrong)


def test_one_image_is_not_enough(tmp_path: Path):
    for probe in (Invariance(images=1, **SCALE), Equivariance(images=1, fitted=3, **SCALE)):
        with pytest.raises(ValueError, match="1 image"):
            somebody.quiet(tmp_path, probe).fit(somebody.Theirs(), somebody.loader(8), somebody.loader(8))
