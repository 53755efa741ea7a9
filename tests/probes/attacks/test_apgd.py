"""Auto-PGD on networks whose robust accuracy is known, and its guarantees."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from linear_network import Linear, accuracy
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.gradient_pass import FAST
from fulgurite.probes.attacks.threat import L1, L2, Linf
from fulgurite.probes.objectives import class_score

THREATS = [Linf(0.1), L2(0.5), L1(2.0)]


def right(net, images, labels):
    with torch.no_grad():
        return net(images).argmax(1) == labels


def exact_l1_accuracy(net, images, labels, radius):
    """Towards each rival, the steepest pixel goes to its bound, then the next, until the radius is spent."""
    pixels = images.flatten(1)
    slopes = net.weight.detach()[None] - net.weight.detach()[labels][:, None]  # [n, target_classes, pixels]
    leads = net(images).detach() - net(images).detach().gather(1, labels[:, None])
    room = torch.where(slopes > 0, 1 - pixels[:, None], pixels[:, None])
    order = slopes.abs().argsort(2, descending=True)
    room, steep = room.gather(2, order), slopes.abs().gather(2, order)
    spent = (radius - (room.cumsum(2) - room)).clamp(min=0).minimum(room)
    leads += (spent * steep).sum(2)
    return float((leads.scatter(1, labels[:, None], -math.inf).amax(1) < 0).float().mean())


# to the exact accuracies, how far L1 may stay behind at so few steps
@pytest.mark.parametrize("loss", ["dlr", "margin"])
@pytest.mark.parametrize(
    ("threat", "exact", "slack"),
    [(Linf(0.1), 0.5733, 0), (L2(0.5), 0.5733, 0), (L1(1.0), None, 0.02), (L1(2.0), None, 0.01)],
    ids=repr,
)
def test_towards_all_target_classes_it_finds_all_that_can_fall_of_a_linear_network(
    regression, threat, exact, slack, loss
):
    net, images, labels = regression
    exact = exact_l1_accuracy(net, images, labels, threat.epsilon) if exact is None else exact
    fast = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    fast[1].load_state_dict(net.state_dict())
    found = accuracy(fast, apgd(fast, images, labels, threat, loss=loss, target_classes=9, steps=20), labels)
    assert exact - 1e-4 <= found <= exact + slack + 1e-4


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None, ([0.0, -0.5], [1.0, 2.0])], ids=str)
@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_it_stays_in_ball_and_bounds(kind, bounds):
    threat = kind(0.4, bounds)
    generator = torch.Generator().manual_seed(0)
    net = Linear(torch.randn(5, 32, generator=generator), torch.zeros(5))
    images = torch.rand(8, 2, 4, 4, generator=generator)
    labels = net(images).argmax(1)
    for how in ({}, {"drop": False}, {"target_classes": 2, "loss": "dlr"}):
        moved = apgd(net, images, labels, threat, steps=12, **how)
        assert (threat.distance(moved, images) <= 0.4 * (1 + 1e-6) + 1e-7).all()
        low, high = threat.limits(images)
        assert ((moved >= low) & (moved <= high)).all()


@pytest.mark.parametrize("threat", THREATS, ids=repr)
@pytest.mark.parametrize("how", [{}, {"target_classes": 3, "loss": "dlr"}, {"drop": False}], ids=str)
def test_an_image_fares_alone_as_among_others_whichever_of_them_fall(regression, threat, how):
    net, images, labels = regression
    images, labels = images[:12], labels[:12].clone()
    moved = apgd(net, images, labels, threat, steps=10, restarts=2, **how)
    assert 0 < right(net, moved, labels).sum() < 12
    assert torch.equal(apgd(net, images, labels, threat, steps=10, restarts=2, **how), moved)
    for i in range(0, 12, 3):
        alone = apgd(net, images[i : i + 1], labels[i : i + 1], threat, steps=10, restarts=2, **how)
        assert torch.equal(alone, moved[i : i + 1])


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_more_restarts_and_more_target_classes_only_add_to_what_falls(regression, threat):
    net, images, labels = (part[:100] if isinstance(part, torch.Tensor) else part for part in regression)
    for more in ("restarts", "target_classes"):
        standing = [
            right(net, apgd(net, images, labels, threat, steps=5, loss="margin", **{more: count}), labels)
            for count in (1, 3)
        ]
        assert not (standing[1] & ~standing[0]).any()
        assert standing[1].sum() < standing[0].sum()


def test_a_target_class_is_reached_that_the_steepest_way_leads_away_from():
    # the likelier rival gains by the first pixel, but never enough; the other would by the second
    weight = torch.zeros(3, 16)
    weight[1, 0], weight[2, 1] = 0.01, 10.5
    net = Linear(weight, torch.tensor([1.0, 0.9, -5.25]))
    images = torch.full((4, 1, 4, 4), 0.5) + torch.arange(1, 5).view(4, 1, 1, 1) * 1e-3
    labels = torch.zeros(4, dtype=torch.long)
    for how, fall in (({}, 0), ({"target_classes": 1}, 0), ({"target_classes": 2}, 4)):
        moved = apgd(net, images, labels, Linf(0.1), steps=10, loss="margin", **how)
        assert (~right(net, moved, labels)).sum() == fall


def test_dropping_spares_passes_and_changes_nothing_in_what_falls(regression):
    net, images, labels = regression
    passes, standing = [], []
    for drop in (True, False):
        net.seen = 0
        moved = apgd(net, images, labels, Linf(0.15), steps=20, drop=drop)
        passes.append(net.seen)
        standing.append(right(net, moved, labels))
    assert torch.equal(*standing)
    assert passes[1] == 450 * 22  # one look before the start
    assert passes[0] < 0.4 * passes[1]


def test_what_is_misclassified_already_is_left_as_it_is_unless_the_loss_is_wanted(regression):
    net, images, labels = regression
    wrong = ~right(net, images, labels)
    assert torch.equal(apgd(net, images, labels, L2(0.5), steps=3)[wrong], images[wrong])
    assert (apgd(net, images, labels, L2(0.5), steps=3, drop=False)[wrong] != images[wrong]).any()


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(2.0)], ids=repr)
def test_it_finds_at_least_the_loss_that_pgd_finds_on_a_trained_network(cnn, threat):
    net, images, labels = cnn[0], cnn[1][:60], cnn[2][:60]
    found = [
        F.cross_entropy(net(moved), labels)
        for moved in (
            apgd(net, images, labels, threat, steps=20, drop=False),
            pgd(net, images, labels, threat, steps=20),
        )
    ]
    assert found[0] >= found[1]


def test_a_targeted_success_is_the_target(regression):
    net, images, labels = regression
    images, labels = images[:60], labels[:60]
    target = (labels + 1) % 10
    for loss in ("cross_entropy", "margin", "dlr"):
        moved = apgd(net, images, labels, Linf(0.3), steps=20, loss=loss, target=target, drop=False)
        hits = net(moved).argmax(1) == target
        assert hits.float().mean() > 0.9
        fewer = apgd(net, images, labels, Linf(0.3), steps=20, loss=loss, target=target)
        assert torch.equal(net(fewer).argmax(1) == target, hits)


def test_an_objective_can_be_maximised(regression):
    net, images, labels = regression
    images, labels = images[:20], labels[:20]
    moved = apgd(net, images, labels, Linf(0.1), steps=10, loss=class_score(3), drop=False)
    low, high = (images - 0.1).clamp(min=0), (images + 0.1).clamp(max=1)
    weight, standing = net.weight.detach()[3].view(1, 8, 8).expand_as(images), right(net, moved, labels)
    felt = (weight != 0) & standing[:, None, None, None]
    assert felt.any()
    assert_close(moved[felt], torch.where(weight > 0, high, low)[felt])


def test_what_fools_the_network_is_kept_though_the_loss_grows_beyond(regression):
    net, images, labels = (part[:60] if isinstance(part, torch.Tensor) else part for part in regression)
    away = class_score(labels)  # a larger score of the label fools nobody; a start may
    dropped, kept = (
        right(net, apgd(net, images, labels, Linf(0.3), steps=5, restarts=3, loss=away, drop=drop), labels)
        for drop in (True, False)
    )
    assert 0 < (~kept).sum() < 60
    assert torch.equal(dropped, kept)


def test_a_fast_gradient_pass_finds_what_the_network_itself_confirms():
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(288, 4))
    )
    images = torch.rand(20, 1, 8, 8)
    net(images)  # moves the running statistics
    labels = net.eval()(images).argmax(1)
    plain, fast = (
        right(net, apgd(net, images, labels, Linf(0.05), steps=10, **how), labels)
        for how in ({}, {"gradient_pass": FAST})
    )
    assert 0 < plain.sum() < 20
    assert torch.equal(plain, fast)


def test_the_network_is_restored_and_no_seed_is_touched():
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten()),
        nn.Linear(144, 4),
    )
    net[1].eval()
    images = torch.rand(6, 1, 8, 8)
    net(images).sum().backward()
    before = copy.deepcopy(net.state_dict())
    grads = [(part.grad, part.grad.clone()) for part in net.parameters()]
    modes, state = [module.training for module in net.modules()], torch.get_rng_state()
    for how in ({}, {"target_classes": 2, "loss": "dlr"}, {"mode": "train"}):
        apgd(net, images, torch.tensor([0, 1, 2, 3, 0, 1]), L2(0.5), steps=4, restarts=2, **how)
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for part, (grad, was) in zip(net.parameters(), grads, strict=True):
        assert part.grad is grad
        assert torch.equal(grad, was)


def test_it_works_inside_inference_mode(regression):
    net, images, labels = regression
    images, labels = images[:20], labels[:20]
    for threat in THREATS:
        outside = apgd(net, images, labels, threat, steps=5)
        with torch.inference_mode():
            assert torch.equal(apgd(net, images.clone(), labels.clone(), threat, steps=5), outside)


def test_a_generator_is_drawn_from(regression):
    net, images, labels = (part[:20] if isinstance(part, torch.Tensor) else part for part in regression)
    first, again, other = (
        apgd(net, images, labels, L2(0.5), steps=3, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("classes", "how", "message"),
    [
        (2, {"loss": "dlr"}, "needs at least 3 classes"),
        (3, {"loss": "dlr", "target_classes": 2}, "needs at least 4 classes"),
        (3, {"loss": "dlr", "target": 1}, "needs at least 4 classes"),
        (1, {"target_classes": 1}, "has only one class"),
        (5, {"target_classes": 2, "target": 0}, "leave out target_classes"),
        (5, {"target_classes": 2, "loss": class_score(0)}, "leave out target_classes"),
        (5, {"steps": 0}, "at least 1"),
        (5, {"restarts": 0}, "at least 1"),
        (5, {"target_classes": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused_at_the_door(classes, how, message):
    net, images = Linear(torch.randn(classes, 16), torch.zeros(classes)), torch.rand(4, 1, 4, 4)
    with pytest.raises(ValueError, match=message):
        apgd(net, images, torch.zeros(4, dtype=torch.long), Linf(0.1), **how)
    assert net.seen <= 4


def test_there_are_no_more_target_classes_than_other_classes():
    net, images = Linear(torch.randn(3, 16), torch.zeros(3)), torch.rand(10, 1, 4, 4)
    labels = net(images).argmax(1)
    two, nine = (apgd(net, images, labels, L2(0.3), steps=5, loss="margin", target_classes=n) for n in (2, 9))
    assert torch.equal(two, nine)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("threat", [Linf(0.05), Linf(0.1), L2(0.5), L2(1.0)], ids=repr)
def test_it_is_as_strong_as_torchattacks(cnn, threat):
    torchattacks = pytest.importorskip("torchattacks")
    net, images, labels = cnn
    same = {"norm": type(threat).__name__, "eps": threat.epsilon, "steps": 50}
    for theirs, how in [
        (torchattacks.APGD(net, loss="ce", **same), {}),
        (torchattacks.APGD(net, loss="dlr", **same), {"loss": "dlr"}),
        (torchattacks.APGDT(net, n_classes=10, **same), {"loss": "dlr", "target_classes": 9}),
    ]:
        with torch.random.fork_rng():  # theirs seeds for everybody
            stand = accuracy(net, theirs(images, labels), labels)
        assert accuracy(net, apgd(net, images, labels, threat, steps=50, **how), labels) <= stand + 0.005
