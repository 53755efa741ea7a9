"""The Square attack: queries, balls, schedules, and exact robust accuracies."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from linear_network import Recording, accuracy, predictions
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attacks.losses import margin
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import L1, L2, Linf

KINDS = [Linf, L2, L1]


def constant(channels, height, width):
    """A network that nothing can fool, and that remembers what it was asked."""
    return Recording(torch.zeros(2, channels * height * width), torch.tensor([2.0, 0.0]))


@pytest.fixture(scope="module")
def regression(logistic):
    """Multinomial logistic regression, test images and labels."""
    weight, bias, images, labels = logistic
    return Recording(weight.clone(), bias.clone()), images, labels


def some(given, count):
    net, images, labels = given
    net.asked = []
    return net, images[:count], labels[:count]


# exact robust accuracy, clean is .9689
@pytest.mark.parametrize(
    ("threat", "exact", "enough"),
    [
        (Linf(0.1), 0.5733, 0.64),
        (Linf(0.1, None), 0.4489, 0.56),
        (L2(0.5), 0.5733, 0.72),
        (L2(0.5, None), 0.5067, 0.7),
        (L1(2.0), 0.2089, 0.65),
    ],
    ids=repr,
)
def test_on_logistic_regression_it_comes_near_the_exact_robust_accuracy(threat, exact, enough, regression):
    net, images, labels = some(regression, None)
    moved = square(net, images, labels, threat, queries=300)
    assert exact - 1e-4 <= accuracy(net, moved, labels) <= enough


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, (0.9, 1.0, 1.5)), None], ids=str)
@pytest.mark.parametrize("size", [(8, 8), (5, 11), (2, 2), (1, 7)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_all_queries_are_in_ball_and_bounds(kind, size, bounds):
    threat = kind({Linf: 0.1, L2: 0.5, L1: 2.0}[kind], bounds)
    net = constant(3, *size)
    images = threat.bounded(torch.rand(4, 3, *size, generator=torch.Generator().manual_seed(0)))
    square(net, images, torch.zeros(4, dtype=torch.long), threat, queries=40, drop=False)
    low, high = threat.limits(images)
    assert len(net.asked) == 41
    for asked in net.asked:
        assert (threat.distance(asked, images) <= threat.epsilon * (1 + 1e-6) + 1e-7).all()
        assert ((asked >= low) & (asked <= high)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_without_bounds_the_whole_radius_is_used(kind):
    threat = kind(0.7, None)
    net, images = constant(2, 9, 9), torch.rand(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    square(net, images, torch.zeros(3, dtype=torch.long), threat, queries=30)
    for asked in net.asked[1:]:
        assert_close(threat.distance(asked, images), torch.full((3,), 0.7), rtol=1e-5, atol=0)


def test_it_starts_at_stripes_and_changes_squares_that_shrink_on_schedule():
    net, images = constant(2, 10, 10), torch.full((2, 2, 10, 10), 0.5)
    images[1] = 0.4
    square(net, images, torch.zeros(2, dtype=torch.long), Linf(0.1), queries=250)
    start = net.asked[1] - images
    assert_close(start.abs(), torch.full_like(start, 0.1))
    assert torch.equal(start, start[:, :, :1].expand_as(start))  # all rows alike
    assert not torch.equal(start[0], start[1])
    ever = torch.zeros(10, 10, dtype=torch.bool)
    for query, asked in enumerate(net.asked[2:], 1):
        halvings = sum(query * 40 > limit for limit in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
        side = max(round(math.sqrt(0.8 / 2**halvings * 100)), 1)
        changed = (asked != net.asked[1]).any(0).any(0)
        rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
        for places in (rows, columns):
            assert not len(places) or int(places.max() - places.min()) < side
        assert_close((asked - images).abs(), torch.full_like(asked, 0.1))
        ever |= changed if side < 4 else False
    assert ever[[0, -1]].any(1).all()
    assert ever[:, [0, -1]].any(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_alone_fares_as_in_its_batch_and_again_the_same(kind, regression):
    net, images, labels = some(regression, 20)
    threat = kind({Linf: 0.1, L2: 0.5, L1: 2.0}[kind])
    together = square(net, images, labels, threat, queries=20, restarts=2)
    assert torch.equal(square(net, images, labels, threat, queries=20, restarts=2), together)
    for row in range(0, 20, 5):
        alone = square(net, images[row : row + 1], labels[row : row + 1], threat, queries=20, restarts=2)
        assert torch.equal(alone[0], together[row])


def test_each_image_is_queried_until_it_is_misclassified(regression):
    net, images, labels = some(regression, 100)
    threat = Linf(0.1)
    moved = square(net, images, labels, threat, queries=50)
    sizes = [len(asked) for asked in net.asked]
    assert len(sizes) == 51
    right = int((predictions(net, images) == labels).sum())
    stands = int((predictions(net, moved) == labels).sum())
    assert sizes[:2] == [100, right]
    assert sizes == sorted(sizes, reverse=True)
    assert stands <= sizes[-1] < right
    net.asked = []
    square(net, images[:5], (labels[:5] + 1) % 10, threat)  # have fallen before
    assert len(net.asked) == 1


def test_misclassified_images_come_back_untouched(regression):
    net, images, labels = some(regression, 10)
    wrong = labels.clone()
    wrong[::2] = (predictions(net, images)[::2] + 1) % 10
    for drop in (True, False):
        moved = square(net, images, wrong, L2(0.3), queries=5, drop=drop)
        assert torch.equal(moved[::2], images[::2])


def test_without_dropping_the_margin_grows_on(regression):
    net, images, labels = some(regression, 60)
    threat = Linf(0.1)
    dropping, not_dropping = (
        square(net, images, labels, threat, queries=100, drop=drop) for drop in (True, False)
    )
    margins = [margin(net(moved), labels).detach() for moved in (dropping, not_dropping)]
    assert torch.equal(margins[0] > 0, margins[1] > 0)
    assert (margins[1] >= margins[0]).all()
    assert margins[1].mean() > margins[0].mean() + 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_more_restarts_never_help_the_network(kind, regression):
    net, images, labels = some(regression, 200)
    threat = kind({Linf: 0.1, L2: 0.5, L1: 2.0}[kind])
    once, thrice = (square(net, images, labels, threat, queries=20, restarts=count) for count in (1, 3))
    margins = [margin(net(moved), labels).detach() for moved in (once, thrice)]
    assert ((margins[0] <= 0) | (margins[1] > 0)).all()
    assert ((margins[1] > 0) & (margins[0] < 0)).any()
    standing = margins[1] < 0
    assert (margins[1] >= margins[0])[standing].all()


@pytest.mark.parametrize("target", [3, "each"])
def test_with_a_target_success_is_the_target(target, regression):
    net, images, labels = some(regression, 60)
    target = (labels + 1) % 10 if target == "each" else target
    wide, narrow = (square(net, images, labels, L2(r), queries=100, target=target) for r in (4.0, 0.3))
    assert (predictions(net, wide) == target).float().mean() > 0.7
    wanted = torch.as_tensor(target).expand_as(labels)
    closer = F.cross_entropy(net(narrow), wanted) < F.cross_entropy(net(images), wanted) - 0.1
    assert closer


def test_it_needs_no_gradient(regression):
    net, images, labels = some(regression, 100)

    class Quantised(nn.Module):
        def forward(self, images):
            return net((16 * images).round() / 16).detach()

    moved = square(Quantised(), images, labels, Linf(0.1), queries=200)
    assert accuracy(Quantised(), moved, labels) < 0.75


def test_a_generator_is_honoured(regression):
    net, images, labels = some(regression, 30)

    def attack(seed):
        return square(net, images, labels, L2(0.3), queries=10, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(attack(1), attack(1))
    assert not torch.equal(attack(1), attack(2))


@pytest.mark.parametrize("target", [None, 3])
def test_the_best_of_all_queries_is_returned(target, regression):
    net, images, labels = some(regression, 12)
    net = Recording(net.weight.detach() / 10, net.bias.detach() / 10)  # so that all logits weigh in
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        net.asked = []
        moved = square(net, image, label, L2(0.2), queries=60, target=target)
        asked = torch.cat(net.asked[1:] or [image])
        logits, many = net(asked).detach(), label.expand(len(asked))
        if target is None:
            values = margin(logits, many)
        else:
            values = -F.cross_entropy(logits, torch.full_like(many, target), reduction="none")
        assert torch.equal(moved[0], asked[values.argmax()])


def test_restarts_differ_in_start_and_squares():
    net, images = constant(1, 8, 8), torch.full((1, 1, 8, 8), 0.5)
    square(net, images, torch.tensor([0]), L2(0.5), queries=6, restarts=2)
    first, second = net.asked[1:7], net.asked[7:]
    assert not torch.equal(first[0], second[0])
    squares = [torch.stack([asked != start for asked in rest]) for start, *rest in (first, second)]
    assert not torch.equal(*squares)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queries": 0}, "at least 1"),
        ({"restarts": 0}, "at least 1"),
        ({"size": 0.0}, "share of the image's area"),
        ({"size": 1.5}, "share of the image's area"),
        ({"loss": "cross_entropy"}, "Square compares images by the margin"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        square(constant(1, 2, 2), torch.zeros(1, 1, 2, 2), torch.tensor([0]), Linf(0.1), **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(0.12), L2(0.6)], ids=repr)
def test_torchattacks_finds_no_more(threat, cnn):
    torchattacks = pytest.importorskip("torchattacks")
    net, images, labels = cnn
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torchattacks.Square(net, norm=type(threat).__name__, eps=threat.epsilon, n_queries=1000)(
            images, labels
        )
    ours = square(net, images, labels, threat, queries=1000)
    assert accuracy(net, ours, labels) <= accuracy(net, theirs, labels) + 0.02
