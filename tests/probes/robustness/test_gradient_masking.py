"""Sanity checks of robust accuracy, on undefended networks and on those that mask gradients."""

import math
from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.threat import L1, L2, Linf
from fulgurite.probes.robustness import gradient_masking
from fulgurite.probes.robustness.check_attacks import noise
from fulgurite.probes.robustness.evaluate import evaluate
from fulgurite.probes.robustness.gradient_masking import CHECKS, sanity_checks, table
from fulgurite.probes.robustness.report import NONE_RIGHT

THREAT = Linf(0.15)
checked = partial(sanity_checks, queries=100)


@pytest.fixture(scope="module")
def digits():
    values, labels = load_digits(return_X_y=True)
    parts = train_test_split(values / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    train, test, train_labels, test_labels = (torch.from_numpy(part) for part in parts)
    return train.float().view(-1, 1, 8, 8), train_labels, test.float().view(-1, 1, 8, 8), test_labels


def trained(images, labels, *, robust=False, epochs=30):
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    steps = epochs * -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for part in torch.randperm(len(images), generator=generator).split(64):
            shown = images[part]
            if robust:
                shown = pgd(network, shown, labels[part], THREAT, steps=7, generator=generator)
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(shown), labels[part]).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


@pytest.fixture(scope="module")
def standard(digits):
    return trained(*digits[:2], epochs=15)


@pytest.fixture(scope="module")
def some(digits):
    return digits[2][:100], digits[3][:100]


class Louder(nn.Module):
    """Logits times a hundred: the softmax is sure, and its gradient is 0."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return 100 * self.network(images)


class Coarser(nn.Module):
    """What rounds its images has a gradient of 0."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(torch.round(16 * images) / 16)


def failed(checks):
    return {check.name for check in checks if not check.passed}


def test_an_honest_network_passes_all_nine(standard, some):
    checks = checked(standard, *some, THREAT)
    assert [check.name for check in checks] == [*CHECKS]
    assert len(checks) == 9
    assert failed(checks) == set(), table(checks)


@pytest.mark.slow
@pytest.mark.parametrize("robust", [False, pytest.param(True, marks=pytest.mark.figures)])
def test_honest_networks_pass_on_all_images(digits, robust):
    checks = sanity_checks(trained(*digits[:2], robust=robust), *digits[2:], THREAT)
    assert failed(checks) == set(), table(checks)


@pytest.mark.slow
@pytest.mark.parametrize("threat", [L2(0.8), L1(3.0)], ids=repr)
def test_it_passes_under_other_threats_too(standard, some, threat):
    checks = checked(standard, *some, threat)
    assert failed(checks) == set(), table(checks)


def test_loud_logits_are_flagged(standard, some):
    assert failed(checked(Louder(standard).eval(), *some, THREAT)) == {
        "zero or non-finite gradients",
        "black box beats white box",
        "unbounded attack does not reach zero",
        "cross-entropy against margin",
    }


def test_rounded_images_are_flagged(standard, some):
    assert failed(checked(Coarser(standard).eval(), *some, THREAT)) == {
        "zero or non-finite gradients",
        "black box beats white box",
        "unbounded attack does not reach zero",
    }


def test_a_softmax_is_flagged_and_the_rest_is_checked_by_its_logarithm(standard, some):
    checks = checked(nn.Sequential(standard, nn.Softmax(1)).eval(), *some, THREAT)
    assert "softmax outputs" in failed(checks)
    assert all(math.isfinite(check.figure) for check in checks), table(checks)


class Shaken(nn.Module):
    """Draws at every pass."""

    def __init__(self, network, by):
        super().__init__()
        self.network, self.by = network, by

    def forward(self, images):
        return self.network(images + self.by * torch.randn_like(images))


@pytest.mark.slow
def test_a_network_that_draws_is_flagged_and_one_with_dropout_is_not(standard, some):
    assert "stochastic network" in failed(checked(Shaken(standard, 0.05), *some, THREAT))
    assert "radius 0 is not clean" in failed(checked(Shaken(standard, 0.3), *some, THREAT))
    images, labels = some
    droops = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)).train()
    checks = {check.name: check for check in checked(droops, images[:20], labels[:20], THREAT)}
    assert checks["stochastic network"].figure == 0


class Landscape(nn.Module):
    """Two classes; how far an image's mean is from 0.5 decides by a curve through given points."""

    def __init__(self, *points):
        super().__init__()
        self.points = points

    def forward(self, images):
        far = images.flatten(1).mean(1) - 0.5
        lead = torch.zeros_like(far)
        for (x0, y0), (x1, y1) in zip(self.points, self.points[1:], strict=False):
            inside = (far >= x0) & (far < x1)
            lead = torch.where(inside, y0 + (far - x0) * (y1 - y0) / (x1 - x0), lead)
        return torch.stack([lead, torch.zeros_like(lead)], 1)


def greys(count):
    """Images that differ, of mean 0.5."""
    images = 0.5 + 0.05 * torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return images - images.mean((2, 3), keepdim=True) + 0.5, torch.zeros(count, dtype=torch.long)


# a valley, in which small steps stay, and behind a wall the abyss, into which one large step leads
LEAP = Landscape((-1, 9), (-0.05, 2), (0.05, 1), (0.1, 3), (0.13, 3), (0.14, -1), (1, -9))
# a gap that is wider than the steps of PGD-100, and narrower than those of PGD-20
GAP = Landscape((-1, 9), (-0.05, 2), (0.04, 1), (0.041, -1), (0.045, -1), (0.046, 1), (0.06, 0.5), (1, 9))


@pytest.mark.parametrize(
    ("network", "name"), [(LEAP, "one step beats many"), (GAP, "more steps still help")], ids=["leap", "gap"]
)
def test_a_landscape_that_misleads_is_flagged(network, name):
    assert name in failed(checked(network, *greys(40), THREAT))


def test_a_check_that_breaks_down_has_failed_and_the_others_go_on(standard, some, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of order")

    monkeypatch.setattr(gradient_masking, "square", broken)
    checks = {check.name: check for check in checked(standard, *some, THREAT)}
    assert failed(checks.values()) == {"black box beats white box"}
    reported = checks["black box beats white box"]
    assert math.isnan(reported.figure)
    assert reported.says == "could not be checked: RuntimeError: out of order"


def constant(classes=10, level=0.0):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    network[1].weight.data.zero_()
    network[1].bias.data[0] = 1 + level
    return network


class NoGraph(nn.Module):
    def forward(self, images):
        return torch.eye(10)[:1].expand(len(images), -1) * 3


@pytest.mark.parametrize("network", [constant(), NoGraph()], ids=["constant", "no graph"])
def test_strange_networks_are_flagged_and_nothing_crashes(network, some):
    checks = checked(network, *some, THREAT)
    assert len(checks) == 9
    assert "zero or non-finite gradients" in failed(checks)
    assert len(table(checks).splitlines()) == 10


def test_without_correct_images_no_attack_check_passes(some):
    images, labels = some
    checks = {
        check.name: check for check in checked(constant(), images[labels != 0], labels[labels != 0], THREAT)
    }
    attacks = [check for check in checks.values() if NONE_RIGHT in check.says]
    assert len(attacks) == 6
    assert not any(check.passed for check in attacks)
    assert checks["softmax outputs"].passed


def test_a_constant_prediction_is_reported_where_attack_checks_pass(some):
    says = {check.name: check.says for check in checked(constant(), *some, THREAT)}
    assert says["more steps still help"].endswith("predicts class 0 for every one of these 100 images")
    assert "class 0" not in says["softmax outputs"]


def test_one_image_is_enough(some):
    checks = checked(constant(), some[0][:1], torch.zeros(1, dtype=torch.long), THREAT)
    assert "zero or non-finite gradients" in failed(checks)


def test_two_classes_are_enough(some):
    images, _ = some
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    checks = checked(network, images, network(images).argmax(1), THREAT)
    assert all(math.isfinite(check.figure) for check in checks), table(checks)
    assert failed(checks) == set(), table(checks)


def test_no_box_is_no_obstacle(standard, some):
    checks = checked(standard, *some, Linf(0.15, bounds=None))
    assert failed(checks) == set(), table(checks)


def test_bad_input_is_refused_at_the_door(standard, some):
    images, labels = some
    with pytest.raises(ValueError, match="outside the threat's bounds"):
        checked(standard, images + 1, labels, THREAT)
    with pytest.raises(ValueError, match="the batch is empty"):
        checked(standard, images[:0], labels[:0], THREAT)
    with pytest.raises(ValueError, match="outputs NaN for 100 of 100 images"):
        checked(constant(level=torch.nan), images, labels, THREAT)


def test_checks_are_repeatable_and_leave_nothing_behind(standard, some):
    images, labels = some[0][:20], some[1][:20]
    random, grads = torch.get_rng_state(), [(p.grad, p.grad.clone()) for p in standard.parameters()]
    first = checked(standard, images, labels, THREAT)
    with torch.inference_mode():
        again = checked(standard, images, labels, THREAT)
    assert first == again
    assert torch.equal(torch.get_rng_state(), random)
    for parameter, (grad, before) in zip(standard.parameters(), grads, strict=True):
        assert parameter.grad is grad
        assert torch.equal(grad, before)


def test_noise_stays_within_reach_and_fools_few(standard, some):
    report = evaluate(standard, *some, THREAT, {"noise": noise})  # refuses what leaves the ball
    assert 0.5 < report.accuracy() <= report.accuracy("clean")
