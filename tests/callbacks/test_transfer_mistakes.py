"""Drift and linear probes of stages: what options, networks and data are refused."""

import pytest
import somebody
import torch

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.transfer import Drift, StageProbes
from fulgurite.probes.frozen_eval import frozen_eval

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


def sample(count: int, *, labels: bool = True) -> Sample:
    images = torch.rand(count, 3, 12, 12)
    return Sample(images, torch.arange(count) % 3 if labels else None, ("a", "b", "c"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Drift("features"), "layers='features'; wanted a list"),
        (lambda: StageProbes([]), "wanted a list of their paths"),
        (lambda: StageProbes(fitted=1), "fitted=1"),
    ],
)
def test_a_wrong_option_is_refused_at_once(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize(
    ("probe", "images", "complaint"),
    [
        (lambda: Drift(on_error="raise"), sample(3), "3 images to compare by; wanted at least 4"),
        (lambda: Drift(["haed"]), sample(9), "no layer 'haed' in Theirs; nearest: head"),
        (lambda: StageProbes(["haed"]), sample(9), "no layer 'haed'"),
        (lambda: StageProbes(), sample(9, labels=False), "no labels"),
        (
            lambda: StageProbes(on_error="raise"),
            sample(2),
            "2 images to fit to and to score on; wanted at least 3",
        ),
    ],
)
def test_what_a_network_or_data_cannot_do_is_reported_before_training(probe, images, complaint):
    with pytest.raises(ValueError, match=complaint), frozen_eval(somebody.Theirs()) as network:
        probe().check(network, images)
