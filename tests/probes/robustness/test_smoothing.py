"""Randomised smoothing: the bound, exact radii of a plane, and attacks that find nothing within them."""

import math
from functools import partial

import pytest
import torch
from attack_callbacks import Linear
from scipy.stats import norm
from torch import nn

from fulgurite.models.noisy_training import Noisy
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.threat import L2
from fulgurite.probes.intervals import clopper_pearson
from fulgurite.probes.robustness.evaluate import curve
from fulgurite.probes.robustness.minimal_distances import minimal_distances
from fulgurite.probes.robustness.smoothing import ABSTAINS, Smoothed, certify, largest_radius

SIGMA = 0.25


class Constant(nn.Module):
    """Answers 2 to everything."""

    def forward(self, images):
        return torch.tensor([0.0, 1.0, 2.0]).expand(len(images), 3) + 0 * images.sum()


class Answers(nn.Module):
    """The same logits for each image; NaN if one of its pixels is brighter than `at_most`."""

    def __init__(self, logits: list[float], at_most: float = math.inf):
        super().__init__()
        self.logits, self.at_most = torch.tensor([logits]), at_most

    def forward(self, images):
        bright = images.amax((1, 2, 3))[:, None] > self.at_most
        return self.logits.expand(len(images), -1).masked_fill(bright, math.nan)


def batch(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    images = 0.5 + 0.05 * torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return images, Linear()(images).argmax(1)


def test_the_largest_radius_is_that_of_the_paper():
    assert largest_radius(1.0, 100_000) == pytest.approx(3.8115, abs=1e-4)
    assert largest_radius(0.25, 100_000) == pytest.approx(0.9529, abs=1e-4)
    assert clopper_pearson(100_000, 100_000, alpha=0.001) == pytest.approx(0.001 ** (1 / 100_000))
    assert clopper_pearson(990, 1000, alpha=0.001) == pytest.approx(0.97604, abs=1e-5)
    assert norm.ppf(0.97604) == pytest.approx(1.978, abs=1e-3)
    assert clopper_pearson(0, 1000, alpha=0.001) == 0


def test_a_constant_answer_is_certified_everywhere_and_a_random_one_nowhere():
    images, _ = batch(4)
    labels = torch.tensor([2, 2, 0, 2])
    found = certify(Constant(), images, labels, SIGMA, draws=500)
    assert found.radii.tolist() == pytest.approx([largest_radius(SIGMA, 500)] * 4)
    largest = float(found.radii[0])
    assert found.accuracies([0, largest * 0.99, largest]) == [0.75, 0.75, 0]
    # grey lies on the plane: either class is as likely
    found = certify(Linear(), torch.full_like(images, 0.5), labels.clamp(max=1), SIGMA, draws=500)
    assert found.answers.tolist() == [ABSTAINS] * 4
    assert found.radii.tolist() == [0] * 4
    assert found.abstentions() == 1
    assert found.as_dict()["answers"] == [None] * 4


def test_radii_of_a_plane_stay_below_the_exact_ones_and_near_them():
    images, labels = batch()
    found = certify(Linear(), images, labels, SIGMA, draws=4000)
    weight = Linear().row.weight[0].detach()
    exact = ((images - 0.5).flatten(1) @ weight).abs() / weight.norm()
    assert (exact < 0.5 * largest_radius(SIGMA, 4000)).any()
    sure = found.answers != ABSTAINS
    assert (found.answers == labels)[sure].all()
    assert (found.radii <= exact).all()  # each is wrong with a probability of .001
    assert (found.radii > exact - 0.15 * SIGMA)[sure & (exact < SIGMA)].all()
    assert (sure & (exact < SIGMA)).sum() > 3


def test_batches_change_nothing_and_an_image_s_noise_is_its_own():
    images, labels = batch(5)
    found = certify(Linear(), images, labels, SIGMA, draws=300)
    assert len(set(found.radii.tolist())) > 2
    split = certify(Linear(), images, labels, SIGMA, draws=300, batch_size=71)
    alone = certify(Linear(), images[3:], labels[3:], SIGMA, draws=300)
    assert torch.equal(split.radii, found.radii)
    assert torch.equal(alone.radii, found.radii[3:])


def test_no_attack_finds_what_is_certified_not_to_exist():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(128, 3))
    images = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    smoothed = Smoothed(network, SIGMA, 128)
    labels = smoothed(images).argmax(1)
    found = certify(network, images, labels, SIGMA, draws=1000)
    assert 0 < found.average_radius() < largest_radius(SIGMA, 1000)
    radii, attack = [0.02, 0.05, 0.1, 0.2], partial(pgd, steps=8)
    certified = found.accuracies(radii)
    attacked = curve(smoothed, images, labels, L2(1), radii, attack).accuracies()
    assert all(sure <= left for sure, left in zip(certified, attacked, strict=True))
    assert attacked[-1] < attacked[0]
    nearest = minimal_distances(smoothed, images, labels, attack="ddn", steps=12)
    assert nearest.values.isfinite().all()
    assert (nearest.values >= found.radii).all()


def test_noise_of_the_training_is_drawn_anew_and_may_leave_the_bounds():
    seen = list[torch.Tensor]()
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images, labels = torch.ones(40, 3, 4, 4), torch.zeros(40).long()
    for _ in range(2):
        Noisy(0.5)(network, images, labels).backward()
    assert not torch.equal(*seen)
    assert float((seen[0] - 1).std()) == pytest.approx(0.5, rel=0.1)
    assert seen[0].max() > 1.5


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ({"sigma": 0}, "sigma=0; wanted a finite standard deviation"),
        ({"alpha": 0.7}, "alpha=0.7; wanted a probability"),
        ({"draws": 0}, "draws=0; wanted a whole number"),
    ],
)
def test_invalid_certification_options_are_reported(knobs, complaint):
    images, labels = batch(2)
    with pytest.raises(ValueError, match=complaint):
        certify(Linear(), images, labels, **{"sigma": SIGMA, **knobs})
    with pytest.raises(ValueError, match="sigma"):
        Noisy(-1.0)


@pytest.mark.parametrize(
    ("network", "label", "complaint"),
    [
        (Answers([math.nan, math.nan]), 0, "outputs NaN for 1 of 1 image; .* diverged in training"),
        (Answers([0.0, 1.0], at_most=0.9), 1, r"outputs NaN for \d+ of 800 noisy copies"),
        (Answers([1.0]), 0, "only one class"),
        (Answers([0.0, 1.0]), 2, "label 2, but the network has 2 classes"),
    ],
)
def test_a_network_that_certifies_nothing_real_is_told(network, label, complaint):
    images, labels = torch.full((2, 1, 2, 2), 0.5), torch.full((2,), label)
    with pytest.raises(ValueError, match=complaint):
        certify(network, images, labels, SIGMA, draws=300)
