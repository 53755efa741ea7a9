"""FAB on networks whose nearest boundary is known, and its guarantees."""

import warnings

import pytest
import torch
from linear_network import Linear, predictions
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attacks import fab as fab_file
from fulgurite.probes.attacks import nearest_adversarial as nearest_file
from fulgurite.probes.attacks.attacked_network import LossGradient
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.gradient_pass import FAST
from fulgurite.probes.attacks.hyperplane import shift_to_plane
from fulgurite.probes.attacks.threat import L1, L2, Linf

KINDS = [Linf, L2, L1]


def classes(count, pixels=27, seed=0):
    random = torch.Generator().manual_seed(seed)
    net = Linear(torch.randn(count, pixels, generator=random), torch.randn(count, generator=random))
    images = torch.rand(20, 3, 3, 3, generator=random)
    return net, images, predictions(net, images)


def normal_and_gaps(net, images, labels):
    """The boundary of a network with two classes, and how far the label's lead over the other is from 0."""
    signs = labels * 2.0 - 1
    normals = ((net.weight[0] - net.weight[1]) * signs[:, None]).detach().view_as(images)
    leads = (net(images)[:, 1] - net(images)[:, 0]).detach() * signs
    return normals, leads


@pytest.fixture(scope="module")
def cnn(trained):
    """The same with BatchNorm."""
    return trained(
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_on_two_linear_classes_it_finds_the_minimal_distance(kind):
    net, images, labels = classes(2)
    threat = kind(100, bounds=None)
    moved = fab(net, images, labels, threat, steps=5, drop=False)
    normals, leads = normal_and_gaps(net, images, labels)
    dual = {Linf: 1, L2: 2, L1: torch.inf}[kind]
    exact = leads / torch.linalg.vector_norm(normals.flatten(1), dual, dim=1)
    assert_close(threat.distance(moved, images), exact, rtol=1e-5, atol=1e-6)
    assert (predictions(net, moved) != labels).all()


@pytest.mark.parametrize("kind", KINDS)
def test_within_bounds_too(kind):
    net, images, labels = classes(2)
    threat = kind(1000)
    moved = fab(net, images, labels, threat, steps=8, drop=False)
    normals, leads = normal_and_gaps(net, images, labels)
    exact = shift_to_plane(images, normals, leads, threat)
    reachable = (exact * normals).flatten(1).sum(1) > leads - 1e-4
    assert reachable.sum() > 10
    found = threat.distance(moved, images)
    assert_close(found[reachable], threat.length(exact)[reachable], rtol=2e-3, atol=0)
    assert (found >= threat.length(exact) * (1 - 1e-5)).all()
    assert (predictions(net, moved)[reachable] != labels[reachable]).all()


def test_a_step_goes_past_the_plane_drawn_to_the_image_by_a_tenth_at_most():
    images = torch.tensor([[-3.0, 0.0], [-3.0, 0.0]]).view(2, 1, 1, 2)
    moved = torch.tensor([[-1.0, 2.0], [-0.1, 2.0]]).view(2, 1, 1, 2)  # the plane: first pixels of 0
    gradient = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2).expand(2, 1, 1, 2)
    slope = LossGradient(moved[:, 0, 0, 0], gradient, torch.zeros(2, 2))
    onto = fab_file._stepped(L2(1, None), moved, images, slope)
    pull = 0.1 / 3.1
    wanted = torch.tensor([[0.9 * 0.05 + 0.1 * 0.15, 1.8], [(1 - pull) * 0.005 + pull * 0.15, 2 - 2 * pull]])
    assert_close(onto.flatten(1), wanted)


def test_without_its_last_search_it_stays_a_little_beyond(monkeypatch):
    monkeypatch.setattr(nearest_file, "LAST_CUTS", 0)
    net, images, labels = classes(2)
    threat = L2(100, bounds=None)
    moved = fab(net, images, labels, threat, steps=5, drop=False)
    normals, leads = normal_and_gaps(net, images, labels)
    beyond = threat.distance(moved, images) / (leads / normals.flatten(1).norm(dim=1))
    assert (beyond > 1.003).all()
    assert (beyond < 1.01).all()


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, (0.9, 1.0, 1.5)), None], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_it_stays_in_ball_and_bounds(kind, bounds):
    net, images, labels = classes(5)
    threat = kind({Linf: 0.05, L2: 0.2, L1: 0.5}[kind], bounds)
    images = threat.bounded(images)
    moved = fab(net, images, labels, threat, steps=6)
    assert (threat.distance(moved, images) <= threat.epsilon * (1 + 1e-6) + 1e-7).all()
    low, high = threat.limits(images)
    assert ((moved >= low) & (moved <= high)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_falls_is_within_the_radius_and_the_rest_at_its_edge(kind):
    net, images, labels = classes(5)
    nearest = fab(net, images, labels, kind(100, None), steps=10, drop=False)
    distances = kind(1).distance(nearest, images)
    threat = kind(float(distances.median()) * 1.01, None)
    moved = fab(net, images, labels, threat, steps=10, drop=False)
    fell = predictions(net, moved) != labels
    assert torch.equal(fell, distances <= threat.epsilon)
    assert_close(moved[fell], nearest[fell])
    assert_close(moved[~fell], threat.project(nearest[~fell], images[~fell]))
    assert_close(threat.distance(moved, images)[~fell], torch.full_like(distances[~fell], threat.epsilon))


def test_dropping_changes_no_verdict_and_saves_passes(regression):
    net, images, labels = regression
    threat = L2(0.5)
    net.seen = 0
    dropping = fab(net, images, labels, threat, steps=5)
    few, net.seen = net.seen, 0
    thorough = fab(net, images, labels, threat, steps=5, drop=False)
    assert few < 0.7 * net.seen
    fell = predictions(net, dropping) != labels
    assert torch.equal(fell, predictions(net, thorough) != labels)
    distances = [threat.distance(moved, images)[fell] for moved in (thorough, dropping)]
    assert (distances[0] <= distances[1] + 1e-6).all()
    assert distances[0].mean() < 0.97 * distances[1].mean()


def test_a_point_found_at_once_costs_two_passes_more_than_the_first_look():
    net, images, labels = classes(2)
    net.seen = 0
    fab(net, images, labels, Linf(100, None), steps=50)
    assert net.seen == 4 * len(images)  # the logits, the verdict, then a slope and the step's verdict


def test_misclassified_images_come_back_untouched():
    net, images, labels = classes(5)
    wrong = labels.clone()
    wrong[::2] = (wrong[::2] + 1) % 5
    for drop in (True, False):
        moved = fab(net, images, wrong, L2(0.5), steps=3, drop=drop)
        assert torch.equal(moved[::2], images[::2])
        assert (moved[1::2] != images[1::2]).any()
    assert torch.equal(fab(net, images, (labels + 1) % 5, L2(0.5)), images)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_alone_fares_as_in_its_batch_and_again_the_same(kind, regression):
    net, images, labels = (part if isinstance(part, nn.Module) else part[:20] for part in regression)
    threat = kind({Linf: 0.08, L2: 0.4, L1: 1.0}[kind])
    together = fab(net, images, labels, threat, steps=4, target_classes=4, restarts=2)
    assert torch.equal(fab(net, images, labels, threat, steps=4, target_classes=4, restarts=2), together)
    for row in range(0, 20, 5):
        alone = fab(
            net, images[row : row + 1], labels[row : row + 1], threat, steps=4, target_classes=4, restarts=2
        )
        assert torch.equal(alone[0], together[row])


def test_more_target_classes_than_classes_are_all_of_them():
    net, images, labels = classes(4)
    threat = L2(0.3)
    assert torch.equal(
        fab(net, images, labels, threat, steps=5), fab(net, images, labels, threat, steps=5, target_classes=3)
    )


def test_the_likeliest_target_class_comes_first(regression):
    net, images, labels = regression
    right = predictions(net, images) == labels
    images, labels = images[right], labels[right]
    one, three = (
        fab(net, images, labels, Linf(0.1), steps=5, target_classes=target_classes, drop=False)
        for target_classes in (1, 3)
    )
    assert (predictions(net, one) != labels).sum() <= (predictions(net, three) != labels).sum()
    second = net(images).scatter(1, labels[:, None], float("-inf")).argmax(1)
    fell = predictions(net, one) != labels
    assert (predictions(net, one)[fell] == second[fell]).float().mean() > 0.9


@pytest.mark.parametrize("target", [3, "each"])
def test_with_a_target_success_is_the_target(target, regression):
    net, images, labels = regression
    target = (labels + 1) % 10 if target == "each" else target
    wide, narrow = (fab(net, images, labels, L2(r), steps=20, target=target) for r in (3.0, 0.4))
    assert ((predictions(net, wide) == target).float().mean()) > 0.95
    others = (predictions(net, narrow) != labels) & (predictions(net, narrow) != target)
    assert (predictions(net, narrow) == target).sum() > 5
    assert others.sum() <= (predictions(net, images) != labels).sum()


@pytest.mark.slow
def test_restarts_never_help_the_network_and_start_elsewhere(cnn):
    net, images, labels = (part if isinstance(part, nn.Module) else part[:160] for part in cnn)
    threat = Linf(0.5)
    once, thrice = (
        fab(net, images, labels, threat, steps=20, target_classes=2, restarts=count, drop=False)
        for count in (1, 3)
    )
    distances = [threat.distance(moved, images) for moved in (once, thrice)]
    assert (distances[1] <= distances[0] + 1e-7).all()
    assert (distances[1] < distances[0] - 1e-5).any()
    assert ((predictions(net, once) == labels) | (predictions(net, thrice) != labels)).all()


def test_a_generator_is_honoured(cnn):
    net, images, labels = (part if isinstance(part, nn.Module) else part[:40] for part in cnn)

    def attack(seed):
        generator = torch.Generator().manual_seed(seed)
        return fab(net, images, labels, L2(0.5), steps=2, target_classes=2, restarts=2, generator=generator)

    assert torch.equal(attack(1), attack(1))
    assert not torch.equal(attack(1), attack(2))


def test_a_faster_gradient_pass_finds_the_same(cnn):
    net, images, labels = (part if isinstance(part, nn.Module) else part[:100] for part in cnn)
    plain, fast = (
        predictions(net, fab(net, images, labels, Linf(0.1), steps=10, target_classes=3, **how)) == labels
        for how in ({}, {"gradient_pass": FAST})
    )
    assert abs(int(plain.sum()) - int(fast.sum())) <= 1


class Odd(nn.Module):
    """A network that answers class 0, with gradients that are of no use."""

    def __init__(self, spoil):
        super().__init__()
        self.spoil = spoil

    def forward(self, images):
        flat = images.flatten(1).sum(1)
        return torch.stack([torch.full_like(flat, 2), self.spoil(flat)], 1)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "spoil",
    [lambda x: 0 * x, lambda x: 1e-38 * x, lambda x: 0.5 * (x - x.detach() + 1) ** 0.5, torch.round],
    ids=["constant", "vanishing", "steep", "flat"],
)
def test_networks_without_useful_gradients_do_no_harm(spoil, kind, bounds):
    images = torch.full((2, 1, 3, 3), 0.05)
    moved = fab(Odd(spoil), images, torch.tensor([0, 0]), kind(0.1, bounds), steps=10)
    assert moved.isfinite().all()
    assert (kind(0.1).distance(moved, images) <= 0.1 * (1 + 1e-6)).all()


def test_a_network_that_answers_nan_away_from_the_image_is_misclassified_there():
    net = Odd(lambda x: torch.where(x > 1, torch.nan, x))
    images = torch.full((2, 1, 3, 3), 0.1)
    moved = fab(net, images, torch.tensor([0, 0]), Linf(0.2), steps=30, drop=False)
    assert net(moved).isnan().any(1).all()
    assert (Linf(0.2).distance(moved, images) < 1.2 * 0.1 / 9).all()  # where the sum becomes 1


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"restarts": 0}, {"target_classes": 0}], ids=str)
def test_counts_below_one_are_refused(wrong):
    net, images, labels = classes(3)
    with pytest.raises(ValueError, match="at least 1"):
        fab(net, images, labels, Linf(0.1), **wrong)


def test_a_loss_is_refused():
    net, images, labels = classes(3)
    with pytest.raises(ValueError, match="FAB has no loss to choose"):
        fab(net, images, labels, Linf(0.1), loss="dlr")


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(0.12), L2(0.6)], ids=repr)
def test_torchattacks_finds_no_more(threat, cnn):
    torchattacks = pytest.importorskip("torchattacks")
    net, images, labels = cnn
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torchattacks.FAB(
            net, norm=type(threat).__name__, eps=threat.epsilon, steps=20, multi_targeted=True, n_classes=10
        )(images, labels)
    fell = (predictions(net, theirs) != labels) & (
        threat.distance(theirs, images) <= threat.epsilon * (1 + 1e-4)
    )
    ours = predictions(net, fab(net, images, labels, threat, steps=20)) == labels
    assert float(ours.float().mean()) <= 1 - float(fell.float().mean()) + 0.01
