"""Minimal attacks on networks whose nearest boundary is known, and known faults of other implementations."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attacks.carlini_wagner import carlini_wagner
from fulgurite.probes.attacks.deepfool import deepfool
from fulgurite.probes.attacks.gradient_pass import FAST
from fulgurite.probes.attacks.minimal import MINIMAL, NORMS, found_distances
from fulgurite.probes.attacks.threat import L1, L2, Linf

ATTACKS = {
    **MINIMAL,
    "fab": partial(MINIMAL["fab"], steps=20, target_classes=3),
    "cw": partial(carlini_wagner, searches=4),
}
EVERY = [(name, norm) for name in ATTACKS for norm in NORMS[name] if (name, norm) != ("fab", "l1")]
KINDS = {"l2": L2, "linf": Linf, "l1": L1}


def long_ones_slow(rows):
    """Parameters of tests, attack first: those of attacks of thousands of steps are slow."""
    rows = [row if isinstance(row, tuple) else (row,) for row in rows]
    return [pytest.param(*row, marks=[pytest.mark.slow] * (row[0] in ("szegedy", "cw"))) for row in rows]


def linear(classes, pixels=16, seed=0):
    random = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    net[1].weight.data = torch.randn(classes, pixels, generator=random)
    net[1].bias.data = 0.1 * torch.randn(classes, generator=random)
    return net.eval()


def batch(count=12, seed=1):
    return 0.35 + 0.3 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def answers(net, images):
    with torch.no_grad():
        return net(images).argmax(1)


def exact(net, images, labels, norm):
    """The distance to the nearest rival of a linear network without bounds, in float64."""
    weight, bias = net[1].weight.detach().double().numpy(), net[1].bias.detach().double().numpy()
    normals = weight - weight[labels, None]
    leads = (normals * images.flatten(1).double().numpy()[:, None]).sum(-1) + bias - bias[labels, None]
    dual = np.linalg.norm(normals, {"l2": 2, "linf": 1, "l1": np.inf}[norm], axis=-1)
    far = -leads / np.where(dual == 0, 1, dual)
    far[range(len(labels)), labels] = np.inf
    return torch.tensor(far.min(1)).clamp(min=0).float()


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_on_two_linear_classes_it_converges_to_the_distance_of_the_plane(name, norm):
    net, images = linear(2), batch()
    labels = answers(net, images)
    free = KINDS[norm](1.0, bounds=None)
    long = {"steps": 400} if name == "cw" else {}  # Adam is slow to settle
    moved = ATTACKS[name](net, images, labels, free, **long)
    found = found_distances(net, images, labels, moved, free)
    wanted = exact(net, images, labels, norm)
    assert_close(found, wanted, rtol=2e-3, atol=1e-5)
    assert (found >= wanted * (1 - 1e-5)).all()


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_fmn_finds_a_nearer_class_behind_the_likeliest(norm):
    net, images = linear(3), batch(40)
    _, likeliest, nearest = net[1].weight.data
    net[1].weight.data[0], likeliest[:], labels = 0, 0.02 * likeliest, torch.zeros(40, dtype=torch.long)
    net[1].bias.data = torch.stack(
        [torch.tensor(0.0), -0.03 - 0.5 * likeliest.sum(), -1 - 0.5 * nearest.sum()]
    )
    free, wanted = KINDS[norm](1.0, bounds=None), exact(net, images, labels, norm)
    one, two = (
        found_distances(
            net, images, labels, MINIMAL["fmn"](net, images, labels, free, target_classes=k), free
        )
        for k in (1, 2)
    )
    assert (one > 1.01 * wanted).any(), "the likeliest class is the nearest of each image"
    assert_close(two, wanted, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_needs_one_step_there(norm):
    net, images = linear(2), batch()
    labels = answers(net, images)
    free = KINDS[norm](1.0, bounds=None)
    moved = deepfool(net, images, labels, free, steps=1)
    found = found_distances(net, images, labels, moved, free)
    assert_close(found, exact(net, images, labels, norm), rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def regression(digits):
    """Multinomial logistic regression, test images and labels."""
    train, test, train_labels, test_labels = digits
    fitted = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(train, train_labels)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    net[1].weight.data, net[1].bias.data = (
        torch.tensor(part, dtype=torch.float32) for part in (fitted.coef_, fitted.intercept_)
    )
    return net, test.float().view(-1, 1, 8, 8)[:40], test_labels[:40]


@pytest.mark.parametrize(("name", "norm"), long_ones_slow(EVERY))
def test_on_logistic_regression_no_distance_is_below_the_exact_one(name, norm, regression):
    net, images, labels = regression
    before = images.clone(), labels.clone()
    moved = ATTACKS[name](net, images, labels, norm)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    found = found_distances(net, images, labels, moved, norm)
    wanted = exact(net, images, labels, norm)  # bounds only add to it
    assert found.isfinite().all()
    assert (found >= wanted * (1 - 1e-4) - 1e-6).all()
    assert float(found.median()) < 1.35 * float(wanted.median())
    assert torch.equal(found == 0, answers(net, images) != labels)
    assert moved.min() >= 0
    assert moved.max() <= 1


@pytest.mark.parametrize("name", long_ones_slow(ATTACKS))
def test_on_digits_every_image_falls_and_not_far_beyond_the_nearest_known(name, cnn):
    net, images, labels = (part if isinstance(part, nn.Module) else part[:32] for part in cnn)
    moved = ATTACKS[name](net, images, labels, "l2")
    found = found_distances(net, images, labels, moved)
    assert found.isfinite().all()
    best = found_distances(net, images, labels, partial(MINIMAL["ddn"], steps=300)(net, images, labels, "l2"))
    assert float(found.mean()) <= 1.08 * float(best.mean())
    # that a batch's rounding decides nothing
    alone = [
        found_distances(net, *(part[row : row + 1] for part in (images, labels, moved))) for row in range(16)
    ]
    assert torch.cat(alone).isfinite().all()


@pytest.mark.parametrize("name", long_ones_slow(ATTACKS))
def test_pixels_at_their_bounds_move(name):
    net = linear(2)
    images = (batch() > 0.5).float()
    labels = answers(net, images)
    moved = ATTACKS[name](net, images, labels, "l2")
    assert found_distances(net, images, labels, moved).isfinite().all()
    assert ((moved != images).flatten(1).sum(1) >= 4).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_logits_that_are_all_negative_are_no_success(name):
    net, images = linear(3), batch()
    labels = answers(net, images)
    net[1].bias.data -= 100
    moved = ATTACKS[name](net, images, labels, "l2")
    found = found_distances(net, images, labels, moved)
    wanted = exact(net, images, labels, "l2")
    assert found.isfinite().all()
    assert (found > wanted * (1 - 1e-4)).all()


class Deaf(nn.Module):
    """Predicts class 0 for every image, with a gradient of 0."""

    def forward(self, images):
        return torch.stack([images.flatten(1).sum(1) * 0 + 2, images.flatten(1).sum(1) * 0], 1)


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_without_an_adversarial_image_the_image_is_returned_and_the_distance_is_infinite(name, norm):
    images = batch(3)
    moved = ATTACKS[name](Deaf(), images, torch.tensor([0, 0, 1]), norm)
    assert torch.equal(moved, images)
    found = found_distances(Deaf(), images, torch.tensor([0, 0, 1]), moved, norm)
    assert found.tolist() == [torch.inf, torch.inf, 0]


@pytest.mark.parametrize("name", ATTACKS)
def test_a_target_is_reached_and_a_faster_pass_finds_as_much(name, cnn):
    net, images, labels = (part if isinstance(part, nn.Module) else part[:8] for part in cnn)
    target = (labels + 1) % 10
    moved = ATTACKS[name](net, images, labels, "l2", target=target, gradient_pass=FAST)
    assert (answers(net, moved) == target).float().mean() > 0.8


@pytest.mark.parametrize("name", ATTACKS)
def test_the_network_is_left_as_it_was(name):
    net, images = linear(3), batch(4)
    net.train()
    labels = answers(net, images)
    state = torch.get_rng_state()
    with torch.inference_mode():
        ATTACKS[name](net, images, labels, "l2")
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "norm"),
    [("ddn", "linf"), ("cw", L1(1.0)), ("szegedy", "linf"), ("deepfool", "l1"), ("fmn", "l7")],
)
def test_a_norm_that_it_does_not_know_is_refused(name, norm):
    net, images = linear(3), batch(2)
    with pytest.raises(ValueError, match=r"; this attack supports (l2|linf|l1|, )+$"):
        ATTACKS[name](net, images, answers(net, images), norm)


def test_a_loss_is_refused():
    net, images = linear(3), batch(2)
    with pytest.raises(ValueError, match="has its own loss"):
        carlini_wagner(net, images, answers(net, images), "l2", loss="dlr")
