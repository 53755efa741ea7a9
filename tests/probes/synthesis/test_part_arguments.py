"""What the parts of an ascent cannot be made of is reported in one sentence."""

import pytest
import torch

import fulgurite.synthesis
from fulgurite.probes.synthesis import after_step, optimizers, priors, transforms
from fulgurite.probes.synthesis.lbfgs import lbfgs


@pytest.mark.parametrize(
    ("make", "reported"),
    [
        (lambda: optimizers.adam(0.0), r"lr=0.0; wanted a number above 0"),
        (lambda: optimizers.adam(float("nan")), "lr=nan; wanted a number above 0"),
        (lambda: optimizers.sgd(-1.0), "lr=-1.0; wanted a number above 0"),
        (lambda: optimizers.sgd(1.0, momentum=-0.1), "momentum=-0.1; wanted a number of at least 0"),
        (lambda: priors.l2(-1.0), "weight=-1.0; wanted a number of at least 0"),
        (lambda: priors.bounded_range(-1.0), "weight=-1.0; wanted a number of at least 0"),
        (lambda: priors.total_variation(float("inf")), "weight=inf; wanted a number of at least 0"),
        (lambda: priors.total_variation(1.0, linear=-1.0), "linear=-1.0; wanted a number of at least 0"),
        (lambda: after_step.decay(2.0), "rate=2.0; wanted a number of at least 0, at most 1"),
        (lambda: after_step.clamp(1.0, 0.0), "low=1.0, high=0.0; wanted a low below the high"),
        (lambda: transforms.jitter(-1), "by=-1; wanted a number of at least 0"),
        (lambda: transforms.noise(-1.0), "deviation=-1.0; wanted a number of at least 0"),
        (lambda: transforms.padding(2, level=128.0), "level=128.0; wanted a number of at least 0, at most 1"),
        (lambda: transforms.scaling(0.0, 0.0), "low=0.0; wanted a number above 0"),
        (lambda: transforms.scaling(1.2, 0.8), "high=0.8; wanted a number of at least 1.2"),
    ],
)
def test_a_part_that_cannot_be_made_is_reported(make, reported: str):
    with pytest.raises(ValueError, match=reported):
        make()


@pytest.mark.parametrize(
    "by", ["adam", optimizers.adam, lbfgs, fulgurite.synthesis.sgd, torch.optim.Adam, None]
)
def test_what_is_no_optimiser_of_images_is_reported(by):
    with pytest.raises(ValueError, match=r"wanted an optimiser with its options, such as by=adam\(0.05\)"):
        optimizers.check_optimiser(by)


def test_optimisers_of_images_are_taken():
    for by in (optimizers.adam(0.1), optimizers.sgd(1.0, momentum=0.9), lbfgs()):
        optimizers.check_optimiser(by)
