import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn

from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.threat import L1, L2, Linf

THREATS = [Linf(0.1), L2(0.5), L1(2.0)]


class Linear(nn.Module):
    """Whose answers to an image are the same bits in every batch, as matrix products' are not."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return (images.flatten(1)[:, None] * self.weight).sum(2) + self.bias


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    return [torch.tensor(part) for part in parts]


@pytest.fixture(scope="module")
def regression(digits):
    """Multinomial logistic regression, test images and labels."""
    train, test, train_labels, test_labels = digits
    fitted = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(train, train_labels)
    net = Linear(*(torch.tensor(part, dtype=torch.float32) for part in (fitted.coef_, fitted.intercept_)))
    return net, test.float().view(-1, 1, 8, 8), test_labels


@pytest.fixture(scope="module")
def cnn(digits):
    """A small network, trained for some seconds, test images and labels."""
    train, test, train_labels, test_labels = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
        )
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(8):
            for part in torch.randperm(len(train)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(net(train[part].float().view(-1, 1, 8, 8)), train_labels[part]).backward()
                optimizer.step()
    return net.eval(), test.float().view(-1, 1, 8, 8), test_labels


def right(net, images, labels):
    with torch.no_grad():
        return net(images).argmax(1) == labels


def accuracy(net, images, labels):
    return float(right(net, images, labels).float().mean())


def exact_l1_accuracy(net, images, labels, radius):
    """Towards each rival, the steepest pixel is moved to its bound, then the next, until the radius is spent."""
    pixels = images.flatten(1)
    slopes = net.weight.detach()[None] - net.weight.detach()[labels][:, None]  # [n, rivals, pixels]
    leads = net(images).detach() - net(images).detach().gather(1, labels[:, None])
    room = torch.where(slopes > 0, 1 - pixels[:, None], pixels[:, None])
    order = slopes.abs().argsort(2, descending=True)
    room, steep = room.gather(2, order), slopes.abs().gather(2, order)
    spent = (radius - (room.cumsum(2) - room)).clamp(min=0).minimum(room)
    leads += (spent * steep).sum(2)
    return float((leads.scatter(1, labels[:, None], -math.inf).amax(1) < 0).float().mean())


# what each attack of at most so many steps must reach; no attack can do better than `exact`
@pytest.mark.parametrize(
    ("threat", "exact", "slack"),
    [
        (Linf(0.05), 0.8667, 0),
        (Linf(0.1), 0.5733, 0),
        (L2(0.5), 0.5733, 0),
        (L2(1.0), 0.0111, 0),
        (L1(1.0), None, 0.015),
        (L1(2.0), None, 0.003),
    ],
    ids=repr,
)
@pytest.mark.parametrize("loss", ["dlr", "margin"])
def test_towards_all_rivals_it_finds_what_can_be_found_of_a_linear_network(
    regression, threat, exact, slack, loss
):
    net, images, labels = regression
    exact = exact_l1_accuracy(net, images, labels, threat.reach) if exact is None else exact
    found = accuracy(net, apgd(net, images, labels, threat, loss=loss, rivals=9, steps=60), labels)
    assert exact - 1e-4 <= found <= exact + slack + 1e-4
