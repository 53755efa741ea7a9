"""Gradients that vanish or are not finite are reported."""

import json
import math
from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.attacks.vanishing_gradients import masked, without_gradient
from fulgurite.probes.robustness.evaluate import evaluate
from fulgurite.probes.robustness.gradient_masking import sanity_checks
from fulgurite.probes.robustness.report import UNCHECKED, Check

THREAT = Linf(0.1)
APGD = {"APGD-CE": partial(apgd, steps=10)}


class Scaled(nn.Module):
    """Logistic regression, its logits times a factor."""

    def __init__(self, network, factor):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, images):
        return self.factor * self.network(images)


@pytest.fixture(scope="module")
def linear():
    values, labels = load_digits(return_X_y=True)
    reported = LogisticRegression(max_iter=1000).fit(values / 16, labels)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    network[1].weight.data = torch.from_numpy(reported.coef_).float()
    network[1].bias.data = torch.from_numpy(reported.intercept_).float()
    images = torch.from_numpy(values / 16).float().view(-1, 1, 8, 8)[:120]
    return network, images, torch.from_numpy(labels[:120])


def test_an_accuracy_that_comes_from_logits_times_a_thousand_does_not_go_without_a_note(linear):
    network, *given = linear
    honest = evaluate(network, *given, THREAT, APGD)
    report = evaluate(Scaled(network, 1000).eval(), *given, THREAT, APGD)
    assert honest.accuracy() < 0.75
    assert report.accuracy() > 0.96
    none, of = report.without_gradient
    assert none > 0.9 * of
    printed = f"{none} of 32 images that stand have a cross-entropy gradient that is zero or not finite"
    assert printed in report.text()
    assert any(printed in note for note in json.loads(json.dumps(report.as_dict()))["notes"])
    assert report.as_dict()["without gradient"] == {"images": none, "of": 32}
    assert honest.without_gradient == (0, 32)
    assert honest.remarks() == [UNCHECKED]


def test_the_report_notes_missing_checks_until_they_are_run(linear):
    report = evaluate(*linear, THREAT, APGD)
    assert report.text().endswith(UNCHECKED)
    assert report.as_dict()["checks"] is None
    few = [part[:30] for part in linear[1:]]
    checked = report.with_checks(sanity_checks(linear[0], *few, THREAT, queries=50))
    assert UNCHECKED not in checked.text()
    assert "all 9 checks passed" in checked.text()
    assert checked.accuracy() == report.accuracy()


def test_checks_that_failed_are_named_in_text_and_json(linear):
    found = [Check("one", 0.1, passed=True, says="fine"), Check("two", math.nan, passed=False, says="broken")]
    report = evaluate(*linear, THREAT, APGD).with_checks(found)
    assert report.text().endswith("1 of 2 checks failed: two")
    reported = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert reported["notes"][-1] == "1 of 2 checks failed: two"
    assert reported["checks"][1] == {"name": "two", "figure": None, "passed": False, "says": "broken"}


def test_without_correct_images_there_is_nothing_to_check(linear):
    report = evaluate(*linear, Linf(0.9), APGD)
    assert report.accuracy() == 0
    assert report.without_gradient == (0, 0)
    assert report.remarks() == []


class Blind(nn.Module):
    """Answers without looking."""

    def forward(self, images):
        return torch.eye(10)[:1].repeat(len(images), 1)


def test_a_network_without_any_gradient_has_none(linear):
    _, images, labels = linear
    everything = torch.ones(120, dtype=torch.bool)
    assert masked(Blind(), images, labels, everything, batch_size=7) == (32, 32)
    assert masked(Blind(), images, labels, ~everything, batch_size=7) == (0, 0)


class Odd(nn.Module):
    """The gradient is zero for the first image, not finite for the second, and plain for the third."""

    def forward(self, images):
        values = images.flatten(1).sum(1)
        odd = torch.stack([0 * values[0], (0 * values[1]).sqrt(), values[2]])
        return torch.stack([odd, 1 - odd], 1)


def test_zero_and_not_finite_gradients_are_detected():
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 1])
    assert without_gradient(Odd(), images, labels).tolist() == [True, True, False]
