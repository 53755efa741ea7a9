"""H-Score and LogME: against their definitions, and for features that separate classes or do not."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from fulgurite.probes.representation.transferability import h_score, log_me


def clouds(
    count: int, size: int, *, apart: float = 1.0, classes: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    middles = apart * torch.randn(classes, size, generator=generator, dtype=torch.float64)
    return middles[labels] + torch.randn(count, size, generator=generator, dtype=torch.float64), labels


def test_h_score_is_that_of_its_definition():
    features, labels = clouds(60, 4)
    means = torch.stack([features[labels == k].mean(0) for k in range(3)])[labels]
    inside, between = (np.cov(part.T.numpy(), bias=True) for part in (features, means))
    assert h_score(features, labels, shrinkage=0) == pytest.approx(np.trace(np.linalg.pinv(inside) @ between))
    assert h_score(features, labels, shrinkage=0) < 2
    shrunk, alpha = ledoit_wolf(features.numpy())
    expected = np.trace(np.linalg.inv(shrunk) @ ((1 - alpha) * between))
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-9)


def test_h_score_of_fewer_images_than_features_is_the_same_from_the_space_that_they_span():
    features, labels = clouds(20, 50)
    means = torch.stack([features[labels == k].mean(0) for k in range(3)])[labels]
    between = np.cov(means.T.numpy(), bias=True)
    shrunk, alpha = ledoit_wolf(features.numpy())
    expected = np.trace(np.linalg.inv(shrunk) @ ((1 - alpha) * between))
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("count", "size"), [(30, 4), (12, 20)])
def test_log_me_is_the_largest_evidence_of_the_gaussian_that_the_labels_are_drawn_from(count: int, size: int):
    features, labels = clouds(count, size, apart=0.6)
    gram, found = (features @ features.T).numpy(), []
    for k in range(3):
        target = (labels == k).double().numpy()

        def loss(logs: np.ndarray, target: np.ndarray = target) -> float:
            covariance = np.exp(logs[0]) * gram + np.exp(logs[1]) * np.eye(count)
            return -multivariate_normal(np.zeros(count), covariance).logpdf(target)

        found.append(-minimize(loss, [-2.0, -2.0], method="Nelder-Mead", options={"xatol": 1e-6}).fun / count)
    assert log_me(features, labels) == pytest.approx(np.mean(found), rel=1e-4)


def test_features_that_tell_classes_apart_score_higher():
    known, labels = clouds(400, 512, apart=0.3)
    unknown, _ = clouds(400, 512, apart=0.0)
    for score in (h_score, log_me):
        assert score(known, labels) > score(unknown, labels)
    # neither scale nor a rotation matters to the H-Score
    turn = torch.linalg.qr(torch.randn(512, 512, dtype=torch.float64)).Q
    assert h_score(5 * known @ turn, labels) == pytest.approx(h_score(known, labels), rel=1e-6)


@pytest.mark.parametrize("score", [h_score, log_me])
@pytest.mark.parametrize(
    ("features", "labels", "complaint"),
    [
        (torch.rand(4, 2), torch.zeros(4).long(), "images of one class alone"),
        (torch.ones(4, 2), torch.arange(4), "features that are all equal"),
        (torch.ones(4, 2) / 0, torch.arange(4), "features that are not finite"),
        (torch.rand(0, 2), torch.arange(0), "features of no image"),
    ],
)
def test_what_has_no_score_is_reported(score, features, labels, complaint):
    with pytest.raises(ValueError, match=complaint):
        score(features, labels)


def test_a_shrinkage_that_is_none_is_reported():
    with pytest.raises(ValueError, match="shrinkage=2; wanted 0 to 1"):
        h_score(torch.rand(4, 2), torch.arange(4) % 2, shrinkage=2)
