"""Minimal distances over the epochs."""

from dataclasses import replace

import pytest
import torch
from attack_callbacks import Linear, looked, numbers, pixels, sample
from drawn_words import words

from fulgurite.callbacks.framework.memory import LOOKS
from fulgurite.callbacks.minimal_distances import MinimalDistances
from fulgurite.probes.attacks.threat import Linf


def test_it_logs_medians_and_the_curve_the_same_in_two_processes():
    given = sample(150)
    one, two = (looked(MinimalDistances("deepfool"), given, ranks=ranks) for ranks in (1, 2))
    assert numbers(one) == numbers(two)
    assert torch.equal(pixels(one)["curve"], pixels(two)["curve"])
    logits = Linear()(given.images).detach()
    exact = (logits[:, 0] - logits[:, 1]).abs() / (2 * Linear().row.weight[0].detach().norm())
    found = numbers(one)
    assert found["not found"] == 0
    assert found["median"] == pytest.approx(float(exact.median()), rel=1e-3)
    for label in (0, 1):
        own = exact[given.labels == label].median()
        assert found[f"median/class {label}"] == pytest.approx(float(own), rel=1e-3)
    assert set(pixels(one)) == {"curve"}


def test_the_curve_shows_earlier_looks_too():
    (probe, fresh), given = (MinimalDistances("deepfool", norm="linf") for _ in range(2)), sample(20)
    probe.memory.last[LOOKS] = [("epoch 0", [(0.0, 0.5), (0.01, 0.0)])]
    for one in (probe, fresh):
        one.look = replace(one.look, epoch=1)
    both, alone = (pixels(looked(one, given))["curve"] for one in (probe, fresh))
    assert both.shape == alone.shape
    assert not torch.equal(both, alone)
    assert {"epoch 0", "epoch 1"} <= {*words(both)}
    fresh.look = replace(fresh.look, epoch=0, first=True)
    assert "before training" in words(pixels(looked(fresh, given))["curve"])


@pytest.mark.parametrize(
    ("make", "reported"),
    [
        (lambda: MinimalDistances("dnn"), "no attack 'dnn' that looks for the nearest image; nearest: ddn"),
        (lambda: MinimalDistances(norm="l7"), "norm='l7'"),
        (lambda: MinimalDistances("ddn", norm="linf"), "this attack supports l2"),
        (lambda: MinimalDistances().check(Linear(), sample(2, labels=False)), "nothing to measure by"),
        (
            lambda: MinimalDistances("fmn", norm=Linf(1, bounds=(0, 0.3))).check(Linear(), sample(2)),
            "outside the threat's bounds",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(make, reported):
    with pytest.raises(ValueError, match=reported):
        make()
