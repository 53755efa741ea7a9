"""Networks, attacks and options that cannot be evaluated as usual."""

from functools import partial

import pytest
import torch
from brightness import IMAGES, LABELS, Brightness, Darken
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from fulgurite.probes.attacks.ensembles import standard
from fulgurite.probes.attacks.gradient import fgsm, pgd
from fulgurite.probes.attacks.square import square
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.robustness.evaluate import curve, evaluate
from fulgurite.probes.robustness.report import NONE_RIGHT, UNCHECKED

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


class Always(nn.Module):
    """The same output for every image."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def forward(self, images):
        return 0 * images.flatten(1)[:, :3] + 2 * torch.eye(3)[self.label]


def test_one_answer_to_all_images_and_none_that_is_right_are_noted():
    same = "the network predicts class 2 for every one of these 5 images"
    one = evaluate(Always(2), IMAGES, LABELS, Linf(0.2), {"none": Darken(0)}).remarks()
    assert [one[0], one[-1]] == [same, UNCHECKED]
    assert "zero or not finite" in one[1]
    never = evaluate(Always(0), IMAGES, LABELS, Linf(0.2), {"none": Darken(0)})
    assert never.remarks() == [NONE_RIGHT, same.replace("class 2", "class 0")]
    alike = evaluate(Always(1), IMAGES[1:4], LABELS[1:4], Linf(0.2), {"none": Darken(0)})
    assert len(alike.remarks()) == 2  # they all are of that class


@pytest.mark.parametrize("way", [evaluate, pgd])
def test_a_network_with_nan_logits_is_refused(way):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    network[1].bias.data[3] = torch.nan
    with pytest.raises(ValueError, match="outputs NaN for 5 of 5 images; wanted logits that are numbers"):
        way(network, IMAGES, LABELS, Linf(0.2))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.long), "the batch is empty"),
        (IMAGES + 1, LABELS, "outside the threat's bounds"),
        (IMAGES, LABELS + 2, "label 4, but the network has 3 classes"),
        (IMAGES, LABELS - 2, "labels down to -1"),
    ],
)
@pytest.mark.parametrize("way", [evaluate, curve])
def test_bad_input_is_refused_at_the_door(way, images, labels, message):
    attack = Darken(0)
    asked = ({"any": attack},) if way is evaluate else ([0.1], attack)
    with pytest.raises(ValueError, match=message):
        way(Brightness(), images, labels, Linf(0.1), *asked)
    assert attack.attacked == []


class HalfSmooth(nn.Module):
    """Separates bright images from dark ones; without a gradient where all of a batch are bright."""

    def forward(self, images):
        logits = torch.stack([images.mean((1, 2, 3)), torch.full((len(images),), 0.5)], 1)
        return logits.detach() if (images > 0.6).all() else logits


def test_an_attack_that_breaks_off_leaves_nothing_behind():
    images = torch.cat([torch.full((4, 1, 2, 2), 0.52), torch.full((4, 1, 2, 2), 0.8)])
    labels = torch.zeros(8, dtype=torch.long)
    attacks = {"PGD": pgd, "nothing": lambda network, images, labels, threat: images}
    report = evaluate(HalfSmooth(), images, labels, Linf(0.1), attacks, batch_size=4)
    assert [(stage.name, int(stage.standing.sum())) for stage in report.stages] == [
        ("clean", 8),
        ("nothing", 8),
    ]
    assert torch.equal(report.answers, labels)
    assert torch.equal(report.images, images)
    assert any("PGD was left out" in note for note in report.notes)


def test_a_curve_ends_where_there_is_no_gradient_to_follow():
    images, labels = torch.full((3, 1, 2, 2), 0.8), torch.zeros(3, dtype=torch.long)
    reported = curve(HalfSmooth(), images, labels, Linf(0.1), [0, 0.05, 0.1], pgd)
    assert tuple(reported.radii) == (0,)
    assert reported.standing.shape == (1, 3)
    with pytest.raises(ValueError, match="no gradient for the attack to follow"):
        curve(HalfSmooth(), images, labels, Linf(0.1), [0.05, 0.1], pgd)


def test_no_radii_and_no_batch_are_refused():
    with pytest.raises(ValueError, match="wanted several"):
        curve(Brightness(), IMAGES, LABELS, Linf(0.1), [])
    with pytest.raises(ValueError, match="batch_size=0"):
        evaluate(Brightness(), IMAGES, LABELS, Linf(0.1), batch_size=0)


def test_a_network_without_logits_is_refused():
    class Twice(Brightness):
        def forward(self, images):
            return super().forward(images), None

    with pytest.raises(ValueError, match="the network returned tuple; wanted logits"):
        evaluate(Twice(), IMAGES, LABELS, Linf(0.1), QUICK)


def test_nothing_is_left_behind():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(16, 5)
    )
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes, random = [module.training for module in network.modules()], torch.get_rng_state()
    with torch.inference_mode():
        report = evaluate(network, IMAGES, LABELS, Linf(0.1), QUICK)
        curve(network, IMAGES, LABELS, Linf(0.1), [0, 0.1])
    assert not report.images.is_inference()
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        assert torch.equal(report.images, evaluate(network, IMAGES, LABELS, Linf(0.1), QUICK).images)


def test_a_user_attack_may_compute_gradients_under_inference_mode():
    def borrowed_idea(network, images, labels, threat):
        leaf = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(network(leaf), labels)
        (slope,) = torch.autograd.grad(loss, leaf)
        return threat.project(leaf.detach() + threat.epsilon * slope.sign(), images)

    with torch.inference_mode():
        report = evaluate(Brightness(), IMAGES, LABELS, Linf(0.2), {"theirs": borrowed_idea})
    assert report.accuracy("theirs") < report.accuracy("clean")


class Crowded(Brightness):
    """Has no memory for more than two images at once."""

    def forward(self, images):
        if len(images) > 2 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super().forward(images)


def test_when_memory_runs_out_it_attacks_fewer_at_once():
    with pytest.warns(
        RuntimeWarning, match="out of memory with 4 images at once; going on with fewer"
    ) as reported:
        crowded = evaluate(Crowded(), IMAGES, LABELS, Linf(0.1), QUICK)
    assert sum("out of memory" in str(one.message) for one in reported) == 1
    assert torch.equal(crowded.images, evaluate(Brightness(), IMAGES, LABELS, Linf(0.1), QUICK).images)


class Louder(nn.Module):
    """Logits times a hundred: the softmax is sure, and its gradient is 0."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return 100 * self.network(images)


@pytest.mark.slow
def test_the_ensemble_sees_through_loud_logits(digits):
    images, labels, test, test_labels = digits
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(30):
        for part in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[part]), labels[part]).backward()
            optimiser.step()
    threat = Linf(0.15)
    test, test_labels, attacks = test[::3], test_labels[::3], standard(threat, 10)
    loud = evaluate(Louder(network.eval()).eval(), test, test_labels, threat, attacks)
    quick = {name: attack for name, attack in attacks.items() if name.startswith("APGD")}
    plain = evaluate(network, test, test_labels, threat, quick)
    assert loud.accuracy("PGD-20") > 0.9
    assert loud.accuracy() <= min(0.22, plain.accuracy() + 0.005)


def test_attacks_without_a_gradient_are_left_out_and_the_others_run():
    class Counting(nn.Module):
        def forward(self, images):
            bright = images.detach().mean((1, 2, 3)) - 0.5
            return torch.stack([-bright, bright], 1)

    images = torch.full((3, 1, 4, 4), 0.45)
    attacks = {"FGSM": fgsm, "Square": partial(square, queries=60)}
    report = evaluate(Counting(), images, torch.zeros(3, dtype=torch.long), Linf(0.2), attacks)
    assert [stage.name for stage in report.stages] == ["clean", "Square"]
    assert report.accuracy() == 0
    assert "FGSM was left out: the output has no gradient" in report.notes[0]


def test_a_network_of_one_class_is_no_network_to_fool():
    with pytest.raises(ValueError, match="has only one class"):
        evaluate(
            nn.Sequential(nn.Flatten(), nn.Linear(4, 1)),
            torch.rand(2, 1, 2, 2),
            torch.zeros(2).long(),
            Linf(0.1),
        )
