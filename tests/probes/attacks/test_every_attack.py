"""Properties of every attack under every threat; add a new attack to `ATTACKS`."""

from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn
from torch.testing import assert_close

from fulgurite.models.small_networks import SmallVGG
from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.gradient_pass import FAST
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import L1, L2, Linf

ATTACKS = {
    "FGSM": fgsm,
    "FGSM, random start": partial(fgsm, start="random"),
    "PGD": partial(pgd, steps=5),
    "PGD, dropping": partial(pgd, steps=5, restarts=2, drop=True),
    "MI-FGSM": partial(pgd, steps=5, momentum=1.0),
    "PGD, margin, fast view": partial(pgd, steps=5, loss="margin", gradient_pass=FAST),
    "APGD-CE": partial(apgd, steps=8),
    "APGD-DLR": partial(apgd, steps=8, loss="dlr"),
    "APGD-T": partial(apgd, steps=6, loss="dlr", target_classes=3),
    "FAB-T": partial(fab, steps=5, target_classes=3),
    "Square": partial(square, queries=30),
}
DETERMINISTIC = [ATTACKS[name] for name in ("FGSM", "FAB-T")]
"""They begin at the image and draw nothing; FAB draws from its second start on (test_fab.py)."""
THREATS = [Linf(0.05), L2(0.6), L1(4.0)]
EVERY = [pytest.param(ATTACKS[name], threat, id=f"{name} {threat}") for name in ATTACKS for threat in THREATS]


def network(channels=1):
    torch.manual_seed(0)
    made = SmallVGG(6, channels, width=8)
    made.train()
    made(torch.rand(32, channels, 12, 12))  # running statistics of its own
    return made.eval()


def batch(count=6, channels=1):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, channels, 12, 12, generator=generator)


def answers(net, images):
    with torch.no_grad():
        return net.eval()(images).argmax(1)


@pytest.mark.parametrize(("attack", "threat"), EVERY)
def test_it_stays_within_ball_and_bounds_and_never_helps_the_network(attack, threat):
    net, images = network(), batch(24)
    labels = answers(net, images)
    labels[::4] = (labels[::4] + 1) % 6  # these are misclassified already
    right = answers(net, images) == labels
    moved = attack(net, images, labels, threat)
    assert moved.shape == images.shape
    assert moved.isfinite().all()
    assert (threat.distance(moved, images) <= threat.epsilon * (1 + 1e-6) + 6e-8).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    left = answers(net, moved) == labels
    assert left.sum() <= right.sum()
    assert not (left & ~right).any()


# FAB looks for the nearest adversarial image, and gives the image itself where it finds none
@pytest.mark.parametrize(
    ("attack", "threat"), [case for case in EVERY if case.values[0] is not ATTACKS["FAB-T"]]
)
def test_where_there_is_a_gradient_every_image_is_moved(attack, threat):
    net, images = network(), batch(12)
    labels = answers(net, images)
    wanted = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(net(wanted), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, wanted)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    moved = attack(net, images, labels, threat)
    standing = answers(net, moved) == labels
    assert (threat.distance(moved, images)[standing] > 0.01 * threat.epsilon).all()
    assert (threat.distance(moved, images) > 0).all()


@pytest.mark.parametrize(("attack", "threat"), EVERY)
def test_nothing_is_left_behind(attack, threat):
    net, images = network(), batch()
    labels = answers(net, images)
    net.train()
    net.norm2.eval()
    net.norm2.weight.requires_grad_(False)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.25) if parameter.requires_grad else None
    grads = [parameter.grad for parameter in net.parameters()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes, hooks = [m.training for m in net.modules()], [len(m._forward_hooks) for m in net.modules()]
    wanted, state = [p.requires_grad for p in net.parameters()], torch.get_rng_state()
    given = images.clone()
    attack(net, images, labels, threat)
    assert torch.equal(images, given)
    assert [m.training for m in net.modules()] == modes
    assert [len(m._forward_hooks) for m in net.modules()] == hooks
    assert [p.requires_grad for p in net.parameters()] == wanted
    assert all(p.grad is grad for p, grad in zip(net.parameters(), grads, strict=True))
    assert all((grad == 0.25).all() for grad in grads if grad is not None)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("attack", "threat"), EVERY)
def test_an_image_alone_fares_as_in_its_batch_and_again_the_same(attack, threat):
    net, images = network(), batch(4)
    labels = answers(net, images)
    together = attack(net, images, labels, threat)
    assert torch.equal(attack(net, images, labels, threat), together)
    order = torch.tensor([2, 0, 3, 1])
    assert_close(attack(net, images[order], labels[order], threat), together[order], rtol=0, atol=2e-3)
    alone = attack(net, images[2:3], labels[2:3], threat)
    assert_close(alone, together[2:3], rtol=0, atol=2e-3)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_radius_of_zero_changes_nothing(attack):
    net, images = network(), batch()
    moved = attack(net, images, answers(net, images), Linf(0))
    assert_close(moved, images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_it_works_under_inference_mode_and_no_grad_on_half_frozen_networks(attack):
    net, images = network(channels=3), batch(channels=3).to(memory_format=torch.channels_last)
    for parameter in net.conv1.parameters():
        parameter.requires_grad_(False)
    labels = answers(net, images)
    plain = attack(net, images, labels, Linf(0.05))
    with torch.inference_mode():
        assert_close(attack(net, images.clone(), labels.clone(), Linf(0.05)), plain)
    with torch.no_grad():
        assert_close(attack(net, images[:, :, ::1], labels, Linf(0.05)), plain)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_it_survives_a_batch_that_has_fallen_already_and_one_image(attack):
    net, images = network(), batch(3)
    wrong = (answers(net, images) + 1) % 6
    assert attack(net, images, wrong, Linf(0.05)).shape == images.shape
    assert attack(net, images[:1], wrong[:1], Linf(0.05)).shape == images[:1].shape


@pytest.mark.parametrize("name", ["FGSM", "PGD", "MI-FGSM", "APGD-CE", "FAB-T", "Square"])
def test_two_classes_suffice(name):
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    images = batch()
    moved = ATTACKS[name](net, images, answers(net, images), Linf(0.3))
    assert (answers(net, moved) != answers(net, images)).any()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_caller_may_choose_the_draws(attack):
    net, images = network(), batch()
    labels = answers(net, images)
    first, again, other = (
        attack(net, images, labels, Linf(0.05), generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    if attack not in DETERMINISTIC:
        assert not torch.equal(first, other)


@pytest.fixture(scope="module")
def regression():
    """Multinomial logistic regression on digits, whose robust accuracy is known exactly."""
    pixels, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        pixels / 16, labels, test_size=0.25, stratify=labels, random_state=0
    )
    fitted = LogisticRegression(C=1, tol=1e-10, max_iter=10000).fit(train, train_labels)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].weight.data = torch.from_numpy(fitted.coef_).float()
    net[1].bias.data = torch.from_numpy(fitted.intercept_).float()
    return net, torch.from_numpy(test).float().view(-1, 1, 8, 8), torch.from_numpy(test_labels).long()


# min over target_classes of the worst margin, with the box: the facts of a linear network
EXACT = {Linf(0.02): 0.9489, Linf(0.05): 0.8667, Linf(0.1): 0.5733, L2(0.25): 0.8556, L2(0.5): 0.5733}


@pytest.mark.parametrize("threat", EXACT, ids=repr)
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_attack_reports_less_than_a_linear_networks_exact_robust_accuracy(attack, threat, regression):
    net, images, labels = regression
    standing = answers(net, attack(net, images, labels, threat)) == labels
    standing &= answers(net, images) == labels
    assert float(standing.float().mean()) >= EXACT[threat] - 5e-5
