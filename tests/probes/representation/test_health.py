"""Effective rank, intrinsic dimension, neural collapse and calibration: closed forms, and digits."""

import math

import pytest
import torch
from digits_network import digits, network, trained_once

from fulgurite.probes.moments import Moments
from fulgurite.probes.representation.codes import codes
from fulgurite.probes.representation.health import (
    effective_rank,
    intrinsic_dimension,
    nearest_mean_disagreement,
    neural_collapse,
)


def cloud(points: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(points, dimensions, generator=generator, dtype=torch.float64)


def moments_of(features: torch.Tensor, labels: torch.Tensor, classes: int) -> Moments:
    moments = Moments([("code", "code")], classes=classes)
    for rows in torch.arange(len(features)).split(17):
        moments.update(rows, {"code": features[rows]}, labels[rows])
    return moments


def test_effective_rank_is_the_number_of_equal_directions():
    assert effective_rank(torch.diag(torch.tensor([3.0, 3, 3, 0, 0]))) == pytest.approx(3)
    shares = torch.tensor([0.5, 0.25, 0.25])
    assert effective_rank(shares.diag()) == pytest.approx(2**1.5)
    assert effective_rank(torch.zeros(3, 3)) == 0


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension_is_that_of_the_surface(dimension: int):
    generator = torch.Generator().manual_seed(1)
    surface = torch.rand(2000, dimension, generator=generator, dtype=torch.float64)
    embedded = surface @ cloud(dimension, 20)
    found = intrinsic_dimension(torch.cat([embedded, embedded[:10]]))  # copies are left out
    assert found == pytest.approx(dimension, rel=0.12)


def test_collapsed_features_have_measures_of_0():
    labels = torch.arange(40) % 4
    features = 3 * torch.eye(4, 6, dtype=torch.float64)[labels] + 5
    weights = torch.eye(4, 6) - 0.25 * torch.tensor([1.0, 1, 1, 1, 0, 0])
    found = neural_collapse(moments_of(features, labels, 4), "code", weights)
    assert found == pytest.approx((0, 0, 0), abs=1e-6)
    assert math.isnan(neural_collapse(moments_of(features, labels, 4), "code").nc3)


def test_neural_collapse_is_that_of_its_definition():
    labels = torch.arange(90) % 3
    features = cloud(90, 5) + 2 * cloud(3, 5, seed=1)[labels]
    means = torch.stack([features[labels == k].mean(0) for k in range(3)])
    inside = features - means[labels]
    centred = means - means.mean(0)
    within, between = inside.T @ inside / 90, centred.T @ centred / 3
    nc1 = (within @ torch.linalg.pinv(between, rtol=1e-10)).trace() / 3
    unit = centred / centred.norm(dim=1, keepdim=True)
    nc2 = sum(abs(float(unit[i] @ unit[j]) + 0.5) for i, j in ((0, 1), (0, 2), (1, 2))) / 3
    weights = cloud(3, 5, seed=2)
    nc3 = (weights / weights.norm() - centred / centred.norm()).norm()
    found = neural_collapse(moments_of(features, labels, 3), "code", weights)
    assert found == pytest.approx((float(nc1), nc2, float(nc3)))
    # a fourth class without images changes nothing
    assert neural_collapse(moments_of(features, labels, 4), "code").nc1 == pytest.approx(float(nc1))


@pytest.mark.slow
def test_neural_collapse_of_digits_falls_ten_times_by_training():
    images, labels = digits()[0]
    found, apart = [], []
    for net in (network(), trained_once()):
        own = codes(net, images)
        moments = moments_of(own, labels, 10)
        found.append(neural_collapse(moments, "code", net[-1].weight.detach()))
        with torch.no_grad():
            apart.append(nearest_mean_disagreement(own, net(images), moments.class_means("code")))
    before, after = found
    assert after.nc1 < before.nc1 / 10
    assert after.nc2 < before.nc2
    assert after.nc3 < before.nc3
    assert apart[1] < 0.02 < apart[0]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: effective_rank(torch.full((2, 2), torch.nan)), "a covariance that is not finite"),
        (lambda: intrinsic_dimension(torch.zeros(9, 2)), "1 different codes; wanted at least 3"),
        (lambda: intrinsic_dimension(cloud(9, 2) / 0), "hold values that are not finite"),
        (
            lambda: neural_collapse(moments_of(cloud(9, 2), torch.zeros(9).long(), 3), "code"),
            "images of one class alone",
        ),
        (
            lambda: neural_collapse(moments_of(torch.ones(9, 2) / 3, torch.arange(9) % 3, 3), "code"),
            "class means that are all equal",
        ),
        (lambda: neural_collapse(Moments(), "code"), "moments without classes"),
    ],
)
def test_what_has_no_health_is_reported(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
