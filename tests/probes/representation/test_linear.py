"""Ridge and softmax regression of features, against scikit-learn."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.representation.linear import RIDGES, Head, Proportion, by_stage, ridge, train_head
from fulgurite.probes.representation.logistic import DECAYS, every_fifth, logistic
from fulgurite.probes.representation.stages import Features


def blobs(
    count: int = 60, size: int = 5, classes: int = 3, *, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around a centre for each class, at odd places and scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, size, generator=torch.Generator().manual_seed(99))
    points = centres[labels] + torch.randn(count, size, generator=generator)
    return (points * torch.linspace(0.1, 10, size) + 50).float(), labels


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels of handwritten digits, every third to test on."""
    pixels, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    test = torch.arange(len(labels)) % 3 == 0
    return pixels[~test].float(), labels[~test], pixels[test].float(), labels[test]


SHAPES = pytest.mark.parametrize(("count", "size"), [(60, 5), (20, 45)], ids=["tall", "wide"])


@SHAPES
@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_ridge_is_scikit_learn_s(count, size, penalty):
    features, labels = blobs(count, size)
    head = ridge(features, labels, penalty=penalty)
    standard = StandardScaler().fit_transform(features.double().numpy())
    wanted = 2.0 * F.one_hot(labels).numpy() - 1
    theirs = Ridge(alpha=penalty * count).fit(standard, wanted).predict(standard)
    assert_close(head.scores(features), torch.from_numpy(theirs), rtol=1e-7, atol=1e-7)
    answers = RidgeClassifier(alpha=penalty * count).fit(standard, labels.numpy()).predict(standard)
    assert torch.equal(head.scores(features).argmax(1), torch.from_numpy(answers))


@SHAPES
def test_the_penalty_is_the_one_that_does_best_on_images_left_out_one_by_one(count, size):
    features, labels = blobs(count, size)
    standard = StandardScaler().fit_transform(features.double().numpy())
    wanted = 2.0 * F.one_hot(labels).numpy() - 1
    errors = {}
    for penalty in RIDGES:
        error = 0.0
        for out in range(count):
            others = np.arange(count) != out
            # the penalty is per image of all of them: the sum that is minimised loses one term, no more
            fit = Ridge(alpha=penalty * count).fit(standard[others], wanted[others])
            error += float(((fit.predict(standard[[out]]) - wanted[out]) ** 2).sum())
        errors[penalty] = error
    assert ridge(features, labels).penalty == min(errors, key=lambda each: errors[each])


@SHAPES
def test_the_error_left_out_is_exact(count, size):
    from fulgurite.probes.representation.linear import _Ridge, standardised

    features, labels = blobs(count, size)
    standard, _, _ = standardised(features)
    wanted = 2.0 * F.one_hot(labels).double() - 1
    exact = _Ridge(standard, wanted).left_out(0.01)
    for out in range(0, count, 7):
        others = torch.arange(count) != out
        fit = Ridge(alpha=0.01 * count).fit(standard[others].numpy(), wanted[others].numpy())
        expected = wanted[out] - torch.from_numpy(fit.predict(standard[[out]].numpy())[0])
        assert_close(exact[out], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("fit", [ridge, logistic])
def test_units_of_the_features_do_not_matter(fit):
    features, labels = blobs()
    others = features.double() * torch.tensor([1.0, 1e-3, 1e3, 7.0, -2.0]).double() - 1e3
    assert_close(
        fit(features, labels).scores(features), fit(others, labels).scores(others), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("fit", [ridge, logistic])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e7])
def test_a_constant_feature_has_no_effect(fit, value):
    features, labels = blobs()
    more = torch.cat([features, torch.full((60, 1), value)], 1)
    head = fit(more, labels)
    assert_close(head.scores(more), fit(features, labels).scores(features), rtol=1e-6, atol=1e-6)
    assert head.weight[:, -1].abs().max() < 1e-6


@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_logistic_regression_is_scikit_learn_s(penalty):
    features, labels = blobs()
    standard = StandardScaler().fit_transform(features.double().numpy())
    theirs = LogisticRegression(C=1 / (penalty * len(labels)), tol=1e-10, max_iter=10_000)
    expected = torch.from_numpy(theirs.fit(standard, labels.numpy()).predict_proba(standard))
    found = logistic(features, labels, penalty=penalty, steps=10_000).scores(features).softmax(1)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_decay_is_the_one_that_does_best_on_validation_images():
    features, labels = blobs(40, 30)
    others, theirs = blobs(400, 30, seed=1)
    losses = {
        penalty: float(F.cross_entropy(logistic(features, labels, penalty=penalty).scores(others), theirs))
        for penalty in DECAYS
    }
    assert logistic(features, labels, validation=(others, theirs)).penalty == min(losses, key=losses.get)
    aside = every_fifth(labels)
    losses = {
        penalty: float(
            F.cross_entropy(
                logistic(features[~aside], labels[~aside], penalty=penalty).scores(features[aside]),
                labels[aside],
            )
        )
        for penalty in DECAYS
    }
    assert logistic(features, labels).penalty == min(losses, key=losses.get)


def test_noise_needs_a_strong_penalty():
    labels = torch.arange(90) % 3
    noise = torch.randn(90, 40, generator=torch.Generator().manual_seed(0))
    signal = noise / 1000 + F.one_hot(labels, 40)
    for fit in (ridge, logistic):
        assert fit(noise, labels).penalty > fit(signal, labels).penalty


def test_about_a_fifth_of_each_class_is_set_aside():
    labels = torch.tensor([0] * 50 + [1] * 13 + [2] * 5 + [3] * 2 + [4])
    aside = every_fifth(labels)
    assert [int(aside[labels == label].sum()) for label in range(5)] == [10, 3, 1, 1, 0]
    gaps = aside[:50].nonzero()[:, 0].diff()
    assert set(gaps.tolist()) == {5}


@pytest.mark.parametrize("fit", [ridge, logistic])
def test_a_class_without_images_is_never_predicted(fit):
    features, labels = blobs()
    head = fit(features, labels * 2)
    assert len(head.bias) == 5
    assert set(head.scores(100 * features).argmax(1).tolist()) <= {0, 2, 4}


def test_a_head_is_a_layer():
    features, labels = blobs()
    head = ridge(features, labels)
    assert_close(head.layer()(features).double(), head.scores(features), rtol=1e-4, atol=1e-4)


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return self.head(self.body(images))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_trained_head_is_the_one_of_training_with_all_else_frozen(optimizer):
    network = Frozen()
    images, labels = torch.rand(50, 1, 8, 8), torch.arange(50) % 3
    features = network.body(images).detach()
    found = train_head(
        features, labels, head=network.head, epochs=3, batch_size=16, optimizer=optimizer, lr=0.1
    )
    groups = [{"params": [network.head.weight]}, {"params": [network.head.bias], "weight_decay": 0.0}]
    if optimizer == "adamw":
        steps = torch.optim.AdamW(groups, 0.1, weight_decay=0.01)
    else:
        steps = torch.optim.SGD(groups, 0.1, 0.9, weight_decay=0.01, nesterov=True)
    torch.manual_seed(0)
    nn.Linear(8, 3)  # draws as many numbers as the head that is begun with
    for step, rows in enumerate(rows for _ in range(3) for rows in torch.randperm(50).split(16)):
        # 12 steps: one of warm-up, then a cosine to zero
        rate = 0.1 * (1 if step == 0 else 0.5 * (1 + math.cos(math.pi * (step - 1) / 11)))
        for group in steps.param_groups:
            group["lr"] = rate
        steps.zero_grad()
        F.cross_entropy(network(images[rows]), labels[rows]).backward()
        steps.step()
    assert_close(found.weight.float(), network.head.weight, rtol=1e-4, atol=1e-5)
    assert_close(found.bias.float(), network.head.bias, rtol=1e-4, atol=1e-5)


def test_training_a_head_draws_from_its_own_seed():
    features, labels = blobs()
    state = torch.get_rng_state()
    one, other, third = (train_head(features, labels, epochs=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.weight, other.weight)
    assert not torch.equal(one.weight, third.weight)


def test_a_head_can_be_trained_where_lightning_validates():
    features, labels = blobs()
    with torch.inference_mode():
        head = train_head(features * 1, labels * 1, epochs=2)
        assert torch.equal(head.weight, train_head(features, labels, epochs=2).weight)


def test_three_ways_tell_digits_apart():
    features, labels, others, theirs = digits()
    found = {fit: fit(features, labels).score(others, theirs).accuracy for fit in (ridge, logistic)}
    found[train_head] = train_head(features / 16, labels, lr=0.03).score(others / 16, theirs).accuracy
    assert found[ridge] > 0.9
    assert found[logistic] > 0.94
    assert found[train_head] > 0.94


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (10, 10), (333, 1000)])
def test_the_interval_is_wilson_s(right, count):
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert Proportion(right, count).interval == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert Proportion(right, count).accuracy == right / count


def test_the_score_counts_what_is_right():
    head = Head(torch.eye(3).double(), torch.zeros(3).double(), 1.0)
    features = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [9, 0, 1]])
    assert head.score(features, torch.tensor([0, 1, 2, 2])) == Proportion(3, 4)


def test_each_stage_has_its_own_classifier():
    features, labels = blobs()
    noise = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    train = Features({"noise": noise, "blobs": features}, labels)
    shares = by_stage(train[::2], train[1::2])
    assert shares["blobs"] == ridge(features[::2], labels[::2]).score(features[1::2], labels[1::2])
    assert shares["blobs"].accuracy > 0.7 > 0.6 > shares["noise"].accuracy
    assert list(by_stage(train, train, fit=partial(ridge, penalty=1.0))) == ["noise", "blobs"]
    with pytest.raises(ValueError, match="fitted on noise, blobs, scored on blobs"):
        by_stage(train, Features({"blobs": features}, labels))


FEW = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: ridge(FEW[0][:1], FEW[1][:1]), "features of 1 image; wanted two or more"),
        (lambda: ridge(FEW[0], FEW[1] - 1), "a label of -1"),
        (lambda: logistic(FEW[0] / 0, FEW[1]), "features that are not finite in 4 of 4 images"),
        (lambda: ridge(*FEW, penalty=0.0), "wanted positive numbers"),
        (lambda: ridge(*FEW, penalties=[]), "wanted positive numbers, at least one"),
        (lambda: logistic(*FEW, penalty=-1.0), "wanted positive numbers"),
        (lambda: train_head(*FEW, head=nn.Linear(3, 2)), "a head for 3 features and features of 2"),
    ],
)
def test_what_cannot_be_fitted_is_reported(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
