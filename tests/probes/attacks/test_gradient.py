"""FGSM, PGD and momentum PGD on linear networks and by hand."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.models.small_networks import SmallVGG
from fulgurite.probes.attacks.attacked_network import attacked
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.gradient_pass import FAST, GradientPass
from fulgurite.probes.attacks.losses import LOSSES, dlr, margin
from fulgurite.probes.attacks.threat import L1, L2, Linf
from fulgurite.probes.objectives import channel, class_score

# the worked example of the lecture on adversarial examples: ten pixels, two classes
PIXELS = torch.tensor([2.0, -1, 3, -2, 2, 2, 1, -4, 5, 1]).view(1, 1, 1, 10)
WEIGHTS = torch.tensor([-1.0, -1, 1, -1, 1, -1, 1, 1, -1, 1])
ZERO = torch.tensor([0])


def linear(*rows: torch.Tensor) -> nn.Sequential:
    network = nn.Sequential(nn.Flatten(), nn.Linear(len(rows[0]), len(rows), bias=False))
    network[1].weight.data = torch.stack(rows)
    return network


def batch(count=6, channels=3, size=16):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, size, size, generator=generator)
    return images, torch.randint(5, (count,), generator=generator)


def small(channels=3) -> SmallVGG:
    torch.manual_seed(0)
    network = SmallVGG(5, channels, width=8)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize("attack", [fgsm, lambda *a: pgd(*a, steps=3, step_size=9.0, start="image")])
def test_the_lectures_linear_classifier_is_fooled_as_in_the_lecture(attack):
    network = linear(torch.zeros(10), WEIGHTS)
    assert_close(network(PIXELS).softmax(1)[0, 1], torch.tensor(0.0474), rtol=0, atol=5e-5)
    for threat, score in ((Linf(0.5, None), 2.0), (L2(0.5, None), -3 + 0.5 * math.sqrt(10))):
        moved = attack(network, PIXELS, ZERO, threat)
        assert_close(network(moved)[0, 1], torch.tensor(score), rtol=0, atol=1e-5)
    worst = attack(network, PIXELS, ZERO, Linf(0.5, None))
    assert_close(worst, PIXELS + 0.5 * WEIGHTS.sign().view(1, 1, 1, 10))
    assert_close(network(worst).softmax(1)[0, 1], torch.tensor(0.8808), rtol=0, atol=5e-5)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_a_linear_networks_worst_image_is_found(kind, bounds):
    generator = torch.Generator().manual_seed(0)
    weights, images = torch.randn(24, generator=generator), torch.rand(5, 1, 4, 6, generator=generator)
    threat = kind({Linf: 0.1, L2: 0.7, L1: 1.5}[kind], bounds)
    threat = L1(1.5, bounds, share=1e-9) if kind is L1 else threat
    labels = torch.ones(5, dtype=torch.long)
    network = linear(torch.zeros(24), weights)
    # far along minus the weights, then back to the nearest point in reach, is the worst there is for Linf and
    # L2; for L1, all goes to the largest weights, as far as the box allows
    far = images - 1e6 * weights.view(1, 1, 4, 6)
    worst = (
        greedy(images, weights, 1.5, bounds) if kind is L1 else threat.project(far.double(), images.double())
    )
    least = network(worst.float())[:, 1]
    if bounds is None:
        dual = weights.norm(p={Linf: 1, L2: 2, L1: torch.inf}[kind])
        assert_close(least, network(images)[:, 1] - threat.epsilon * dual, rtol=1e-4, atol=1e-4)
    moved = pgd(network, images, labels, threat, steps=400, step_size=0.05 * threat.epsilon)
    reached = network(moved)[:, 1]
    assert (reached >= least - 1e-4).all()
    if (
        kind is not L1 or bounds is None
    ):  # the steepest pixel alone gets stuck at the box: that is why share is
        assert_close(reached, least, rtol=0, atol=0.02)


def greedy(images, weights, radius, bounds):
    worst = images.clone().flatten(1)
    for image in worst:
        left = radius
        for place in weights.abs().argsort(descending=True).tolist():
            room = (
                left
                if bounds is None
                else min(left, float(image[place] if weights[place] > 0 else 1 - image[place]))
            )
            image[place] -= room * weights[place].sign()
            left -= room
    return worst.view_as(images)


@pytest.mark.parametrize("loss", [*LOSSES, "objective"])
def test_every_loss_climbs(loss):
    network, (images, labels) = small(), batch()
    asked = channel("conv2", 1) - class_score(labels) if loss == "objective" else loss
    with attacked(network, images, labels, Linf(0.1), loss=asked) as run:
        rows = torch.arange(len(images))
        before = run.loss_gradient(run.images, rows).values
        after = run.loss_gradient(pgd(network, images, labels, Linf(0.1), loss=asked, steps=5), rows).values
    assert (after > before).all()


def test_targets_are_reached_and_labels_cannot_be_mistaken_for_them():
    network, (images, labels) = small(), batch()
    targets = network(images).topk(2, 1).indices[:, 1]
    moved = pgd(network, images, labels, Linf(0.5), target=targets, steps=40, loss="margin")
    assert (network(moved).argmax(1) == targets).all()
    common = int(targets.mode().values)
    moved = pgd(network, images, labels, Linf(0.5), target=common, steps=40, drop=True)
    assert (network(moved).argmax(1) == common).all()


def test_more_restarts_never_raise_the_accuracy():
    network, (images, labels) = small(), batch(24)
    labels = network(images).argmax(1)
    standing = [
        network(pgd(network, images, labels, Linf(0.02), steps=3, restarts=restarts)).argmax(1) == labels
        for restarts in (2, 4, 8)
    ]
    assert standing[0].sum() > 0
    assert not (standing[1] & ~standing[0]).any()
    assert not (standing[2] & ~standing[1]).any()


def test_an_image_that_fell_costs_no_more_passes():
    network, (images, labels) = small(), batch(8)
    network.eval()
    wrong = (network(images).argmax(1) + 1) % 5  # fools the network as it is
    seen = []
    network.conv1.register_forward_hook(lambda module, inputs, out: seen.append(len(out)))
    labels = torch.where(torch.arange(8) < 5, wrong, network(images).argmax(1))
    seen.clear()
    moved = pgd(network, images, labels, Linf(0.0), steps=10, drop=True)
    assert seen[:2] == [8, 3]
    assert_close(moved, images)


@pytest.mark.parametrize(
    "gradient_pass", [GradientPass(folded=True), FAST, GradientPass(True, True, torch.bfloat16)], ids=repr
)
def test_a_faster_view_of_the_network_has_nearly_the_same_slopes(gradient_pass):
    network, (images, labels) = small(), batch()
    rows = torch.arange(len(images))
    slopes = []
    for seen in (GradientPass(), gradient_pass):
        with attacked(network, images, labels, Linf(0.1), gradient_pass=seen) as run:
            slopes.append(run.loss_gradient(run.images, rows))
    plain, fast = slopes
    close = 0.05 if gradient_pass.dtype == torch.bfloat16 else 1e-4
    assert (fast.logits - plain.logits).abs().max() <= close * plain.logits.abs().max()
    alike = torch.cosine_similarity(plain.gradient.flatten(1), fast.gradient.flatten(1))
    assert alike.min() > 1 - close


def test_success_of_a_gradient_pass_is_confirmed_by_the_network_itself():
    network, (images, _) = small(), batch()
    with attacked(network, images, network(images).argmax(1), Linf(0.1), gradient_pass=FAST) as run:
        lie = torch.full((6, 5), 0.0)
        lie[torch.arange(6), (run.labels + 1) % 5] = 1.0
        seems = run.seems_misclassified(lie, torch.arange(6))
        assert seems.all()
        assert not run.confirmed(run.images, torch.arange(6), seems).any()


def test_batchnorm_that_does_not_follow_a_convolution_alone_is_not_folded():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.head = nn.Linear(8, 5)

        def forward(self, images):
            once = self.conv(images)
            return self.head((self.norm(once) + once).mean((2, 3)))

    torch.manual_seed(0)
    network = Twice().eval()
    network.norm.running_var.fill_(9.0)
    images, labels = batch()
    with pytest.raises(ValueError, match="folded"):
        pgd(network, images, labels, Linf(0.1), gradient_pass=GradientPass(folded=True))


def test_in_train_mode_the_batch_is_normalised_but_nothing_is_learnt():
    network, (images, labels) = small().train(), batch()
    network.norm1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    kept, frozen = (pgd(network, images, labels, Linf(0.1), mode=mode) for mode in ("train", "eval"))
    assert not torch.equal(kept, frozen)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_momentum_of_a_nought_gradient_moves_nothing_and_is_not_nan():
    network = linear(torch.zeros(4), torch.zeros(4))
    images = torch.full((2, 1, 2, 2), 0.5)
    moved = pgd(network, images, torch.tensor([0, 1]), Linf(0.1), momentum=1.0, start="image")
    assert_close(moved, images)


def test_dlr_does_not_change_with_the_scale_of_the_logits_and_knows_its_least_classes():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    labels, targets = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 4, 4])
    for asked in (None, targets):
        assert_close(dlr(logits, labels, asked), dlr(100 * logits, labels, asked), rtol=1e-4, atol=1e-5)
    ranked = torch.tensor([[4.0, 3, 2, 1]])
    assert_close(dlr(ranked, ZERO), torch.tensor([-0.5]))
    assert_close(dlr(ranked, ZERO, torch.tensor([1])), torch.tensor([-1 / 2.5]))
    with pytest.raises(ValueError, match="at least 3"):
        dlr(logits[:, :2], labels % 2)
    with pytest.raises(ValueError, match="at least 4"):
        dlr(logits[:, :3], labels % 3, targets % 3)
    assert_close(margin(ranked, ZERO), torch.tensor([-1.0]))


WRONG = {
    "outside": (lambda n, i, y: pgd(n, i * 3 - 1, y, Linf(0.1)), "normalise in the network"),
    "just outside": (lambda n, i, y: pgd(n, i - 0.01, y, Linf(0.1)), "outside"),
    "empty": (lambda n, i, y: pgd(n, i[:0], y[:0], Linf(0.1)), "no images"),
    "not finite": (lambda n, i, y: pgd(n, i * torch.nan, y, Linf(0.1)), "NaN"),
    "label too large": (lambda n, i, y: pgd(n, i, y + 5, Linf(0.1)), "5 classes"),
    "label below 0": (lambda n, i, y: pgd(n, i, y - 9, Linf(0.1)), "from 0"),
    "target": (lambda n, i, y: pgd(n, i, y, Linf(0.1), target=7), "5 classes"),
    "probabilities": (lambda n, i, y: pgd(nn.Sequential(n, nn.Softmax(1)), i, y, Linf(0.1)), "probabilities"),
    "maps": (lambda n, i, y: pgd(n.conv1, i, y, Linf(0.1)), r"\[images, classes\]"),
    "loss": (lambda n, i, y: pgd(n, i, y, Linf(0.1), loss="crossentropy"), "cross_entropy"),
    "steps": (lambda n, i, y: pgd(n, i, y, Linf(0.1), steps=0), "at least 1"),
    "restarts": (lambda n, i, y: pgd(n, i, y, Linf(0.1), start="image", restarts=2), "all the same"),
    "folded": (lambda n, i, y: pgd(n, i, y, Linf(0.1), mode="train", gradient_pass=FAST), "eval mode"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_attacked_is_reported_at_the_door(wrong):
    attack, printed = WRONG[wrong]
    with pytest.raises(ValueError, match=printed):
        attack(small(), *batch())


def test_labels_given_as_targets_are_refused():
    images, labels = batch()
    with pytest.raises(ValueError, match="the targets are the labels themselves"):
        pgd(small(), images, labels, Linf(0.1), target=labels)
