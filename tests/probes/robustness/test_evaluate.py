"""Robust accuracy and its curve over radii, exact on linear networks."""

import json
from functools import partial

import pytest
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.ensembles import ensemble, standard
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import L1, L2, Linf
from fulgurite.probes.intervals import wilson
from fulgurite.probes.robustness.evaluate import PROBABILITIES, curve, evaluate
from fulgurite.probes.robustness.report import CUMULATIVE, UNCHECKED, Curve, Report, Stage

QUICK = {"FGSM": fgsm, "PGD-20": partial(pgd, drop=True)}


@pytest.fixture(scope="module")
def digits():
    values, labels = load_digits(return_X_y=True)
    parts = train_test_split(values / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    train, test, train_labels, test_labels = (torch.from_numpy(part) for part in parts)
    return (
        train.float().view(-1, 1, 8, 8),
        train_labels,
        test.float().view(-1, 1, 8, 8),
        test_labels,
    )


@pytest.fixture(scope="module")
def linear(digits):
    """Multinomial logistic regression on digits: how far it can be moved is known exactly."""
    images, labels, test, test_labels = digits
    reported = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(
        images.flatten(1).double().numpy(), labels.numpy()
    )
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    network[1].weight.data = torch.from_numpy(reported.coef_).float()
    network[1].bias.data = torch.from_numpy(reported.intercept_).float()
    return network.eval(), test, test_labels


def least_margins(network, images, labels, threat):
    """The smallest lead of the label over any rival within reach and box: a slow twin."""
    weight, bias = network[1].weight.double(), network[1].bias.double()
    found = []
    for image, label in zip(images.flatten(1).double(), labels.tolist(), strict=True):
        margins = []
        for rival in range(len(bias)):
            if rival != label:
                slope = weight[label] - weight[rival]
                lead = slope @ image + bias[label] - bias[rival]
                margins.append(float((lead + slope @ worst_shift(slope, image, threat)).detach()))
        found.append(min(margins))
    return torch.tensor(found)


def worst_shift(slope, image, threat):
    radius = threat.epsilon
    room = torch.where(slope > 0, image, 1 - image)  # how far each pixel can go against its slope
    if isinstance(threat, Linf):
        sizes = room.clamp(max=radius)
    elif isinstance(threat, L2):
        low, high = 0.0, 1e6
        for _ in range(100):
            factor = (low + high) / 2
            inside = (factor * slope.abs()).minimum(room).norm() <= radius
            low, high = (factor, high) if inside else (low, factor)
        sizes = (low * slope.abs()).minimum(room)
    else:
        sizes, left = torch.zeros_like(room), radius
        for pixel in slope.abs().argsort(descending=True).tolist():
            sizes[pixel] = min(left, float(room[pixel]))
            left -= float(sizes[pixel])
    return -slope.sign() * sizes


EXACT = {Linf(0.1): 0.5733, L2(0.5): 0.5733, L1(1.0): 0.6844}
SHORT = {
    **QUICK,
    "APGD-T": partial(apgd, steps=40, loss="margin", target_classes=9),
    "Square": partial(square, queries=50),
}


def check_exactness(network, images, labels, threat, attacks):
    report = evaluate(network, images, labels, threat, attacks)
    least = least_margins(network, images, labels, threat)
    for stage in report.stages:
        assert stage.standing[least > 1e-5].all(), f"{stage.name} fells what cannot fall"
    assert torch.equal(report.stages[-1].standing, least > 0)
    return report.accuracy()


def test_what_is_left_of_a_linear_network_is_its_exact_robust_accuracy(linear):
    assert check_exactness(*linear, Linf(0.1), SHORT) == pytest.approx(EXACT[Linf(0.1)], abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("threat", EXACT, ids=repr)
def test_the_ensemble_gives_the_exact_robust_accuracy_of_a_linear_network(linear, threat):
    network, images, labels = linear
    assert check_exactness(network, images[::3], labels[::3], threat, None) == pytest.approx(
        EXACT[threat], abs=0.08
    )


def test_cross_entropy_alone_misses_some(linear):
    report = evaluate(*linear, Linf(0.1), {"PGD-100": partial(pgd, steps=100, drop=True)})
    assert report.accuracy("clean") == pytest.approx(0.9689, abs=5e-5)
    assert report.accuracy() == pytest.approx(0.6067, abs=0.01)


def test_the_network_decides_not_the_attack(linear):
    network, images, labels = linear
    printed = evaluate(network, images, labels, Linf(0.1), {"none": lambda network, images, *_: images})
    assert printed.accuracy("none") == printed.accuracy("clean")
    assert torch.equal(printed.images, images)


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(0.08), L2(0.4), L1(2.0)], ids=repr)
def test_batches_change_nothing_but_rounding(linear, threat):
    network, images, labels = linear
    images, labels = images[:40], labels[:40]
    whole, *parts = (
        evaluate(network, images, labels, threat, QUICK, batch_size=size) for size in (40, 7, 1, None)
    )
    for part in parts:
        assert [stage.standing.tolist() for stage in part.stages] == [
            stage.standing.tolist() for stage in whole.stages
        ]
        assert_close(part.images, whole.images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("threat", [Linf("8/255"), L2(0.5), L1(12)], ids=repr)
def test_rounding_is_no_cheat(threat):
    """Projected in float64 and rounded, as an attack from outside might do."""
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 3))

    def attack(network, images, labels, threat):
        far = images.double() + torch.randn(images.shape, dtype=torch.float64)
        return threat.project(far, images.double()).float()

    labels = network(images).argmax(1)
    assert len(evaluate(network, images, labels, threat, {"far": attack}).stages) == 2


def test_probabilities_are_attacked_by_their_logarithm(linear):
    network, images, labels = linear
    attacks = {**QUICK, "margin": partial(pgd, loss="margin", drop=True)}
    logits, shares = (
        evaluate(asked, images, labels, Linf(0.1), attacks)
        for asked in (network, nn.Sequential(network, nn.Softmax(1)).eval())
    )
    assert logits.notes == ()
    assert shares.notes == (PROBABILITIES,)
    for place in range(len(shares.stages)):
        assert shares.accuracy(place) == pytest.approx(logits.accuracy(place), abs=0.005)
    assert_close(shares.confidence[:5], logits.confidence[:5], rtol=0, atol=1e-3)


def test_a_radius_curve_is_exact_on_a_linear_network(linear):
    network, images, labels = linear
    images, labels = images[:150], labels[:150]
    margin = partial(pgd, steps=20, restarts=1, loss="margin", drop=True)
    found = curve(network, images, labels, Linf(1), [0.06, 0, "0.02"], margin)
    assert found.radii == (0, 0.02, 0.06)
    for radius, accuracy in zip(found.radii, found.accuracies(), strict=True):
        exact = least_margins(network, images, labels, Linf(radius)) > 0
        assert accuracy == pytest.approx(float(exact.float().mean()), abs=0.014)  # the untargeted margin


def report_of(standing, confidence):
    stages = [Stage(str(k), torch.tensor(line), 0.0) for k, line in enumerate(standing)]
    count = len(confidence)
    return Report(
        Linf(0.1),
        torch.zeros(count, dtype=torch.long),
        tuple(stages),
        torch.zeros(count, 1, 1, 1),
        torch.ones(count, dtype=torch.long),
        torch.tensor(confidence),
    )


def test_the_worst_off_are_the_most_confident_errors():
    clean, last = [True, True, False, True, True], [False, False, False, True, False]
    report = report_of([clean, last], [0.6, 0.9, 1.0, 0.99, 0.7])
    assert report.worst(10).tolist() == [1, 4, 0]
    assert report.worst(2).tolist() == [1, 4]
    early = Curve((0.0, 0.1, 0.2), torch.tensor([clean, [False, True, False, True, False], last]))
    assert report.worst(10, early).tolist() == [4, 0, 1]
    assert [one["image"] for one in report.as_dict(early)["worst"]] == [4, 0, 1]


@pytest.mark.parametrize(("right", "count"), [(0, 10), (8, 10), (450, 450), (258, 450), (1, 1)])
def test_the_interval_is_wilsons(right, count):
    reported = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right, count) == pytest.approx((reported.low, reported.high), abs=1e-12)
    report = report_of([[True] * right + [False] * (count - right)], [0.5] * count)
    assert report.interval() == wilson(right, count)


def test_the_ensemble_is_autoattacks_in_order_of_cost():
    assert [*ensemble(Linf(0.1), 10)] == ["APGD-CE", "APGD-T (DLR)", "FAB-T", "Square"]
    assert [*standard(L2(0.1), 4)][:3] == ["FGSM", "PGD-20", "APGD-CE"]
    asked = ensemble(L1(1), 10)
    assert isinstance(asked["APGD-CE"], partial)
    assert asked["APGD-CE"].keywords["restarts"] == 5
    assert isinstance(asked["APGD-T (DLR)"], partial)
    assert asked["APGD-T (DLR)"].keywords["target_classes"] == 5


def test_a_report_reads_as_a_table_and_as_json(linear):
    network, images, labels = linear
    report = evaluate(network, images, labels, Linf(0.1), QUICK)
    lines = report.text().splitlines()
    assert lines[0] == str(Linf(0.1))
    assert lines[1].startswith("robust accuracy after ")
    assert lines[2].split()[:2] == ["clean", "0.9689"]
    assert [line.split("  ")[0] for line in lines[2:5]] == ["clean", "FGSM", "+ PGD-20"]
    assert lines[5:] == [CUMULATIVE, UNCHECKED]
    reported = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert reported["images"] == 450
    assert reported["stages"][0]["accuracy"] == report.accuracy("clean")
    assert [one["image"] for one in reported["worst"]] == report.worst(10).tolist()
    assert [stage["after"] for stage in reported["stages"]] == [[], ["FGSM"], ["FGSM", "PGD-20"]]
    assert reported["notes"] == [CUMULATIVE, UNCHECKED]
    with pytest.raises(ValueError, match="no stage 'PGD'; nearest: PGD-20"):
        report.accuracy("PGD")
