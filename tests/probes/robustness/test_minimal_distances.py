"""Distances of the nearest adversarial images, and the curve that follows from them."""

import pytest
import torch
from attack_callbacks import Linear, Probabilities

from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.threat import L2, Linf
from fulgurite.probes.robustness.evaluate import curve
from fulgurite.probes.robustness.minimal_distances import Distances, minimal_distances


def batch(count=20):
    images = 0.5 + 0.02 * torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return images, Linear()(images).argmax(1)


def test_on_a_linear_network_they_are_those_of_the_plane_in_any_batch():
    images, labels = batch()
    wrong = labels.clone()
    wrong[::5] = 1 - wrong[::5]
    found = minimal_distances(Linear(), images, wrong, attack="deepfool")
    logits = Linear()(images).detach()
    exact = (logits[:, 0] - logits[:, 1]).abs() / (2 * Linear().row.weight[0].detach().norm())
    exact[::5] = 0
    torch.testing.assert_close(found.values, exact, rtol=1e-3, atol=1e-6)
    assert found.median() == float(found.values.median())
    again = minimal_distances(Linear(), images, wrong, attack="deepfool", batch_size=7)
    torch.testing.assert_close(again.values, found.values, rtol=1e-4, atol=1e-6)


def test_the_curve_agrees_with_the_attacked_one_within_two_points():
    images, labels = batch(200)
    found = minimal_distances(Linear(), images, labels, "linf", "deepfool")
    radii = [found.median() * share for share in (0.4, 0.7, 1, 1.3, 1.6)]
    attacked = curve(Linear(), images, labels, Linf(0.1), radii, pgd).accuracies()
    assert all(0.05 < share < 0.95 for share in attacked)
    for mine, theirs in zip(found.accuracies(radii), attacked, strict=True):
        assert mine == pytest.approx(theirs, abs=0.02)


def test_medians_are_per_class_and_images_without_a_result_are_counted():
    labels, values = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([0.0, 1.0, 3.0, 2.0, torch.inf])
    found = Distances(L2(1.0), labels, values)
    assert found.per_class() == {0: 1.0, 2: 2.0}
    assert found.accuracies([0, 1, 2.5]) == pytest.approx([0.8, 0.6, 0.4])
    words = found.as_dict()
    assert words["not found"] == 1
    assert words["distances"][-1] is None
    assert found.points(4) == [(0.0, pytest.approx(0.8)), (1.0, 0.6), (2.0, 0.4), (3.0, 0.2)]


def test_probabilities_are_attacked_by_their_logarithm():
    images, labels = batch(6)
    ours, theirs = (
        minimal_distances(net, images, labels, attack="ddn", steps=40) for net in (Linear(), Probabilities())
    )
    torch.testing.assert_close(theirs.values, ours.values, rtol=1e-2, atol=1e-5)


def test_an_unknown_attack_is_refused():
    images, labels = batch(2)
    with pytest.raises(ValueError, match="no attack 'dnn' that looks for the nearest image; nearest: ddn"):
        minimal_distances(Linear(), images, labels, attack="dnn")
