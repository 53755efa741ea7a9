"""Digits, and a small network trained on them, for all attacks."""

import pytest
import torch
import torch.nn.functional as F
from linear_network import Linear
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn


@pytest.fixture(scope="session")
def digits():
    """Images to train on and to test on, flat and in [0, 1], and the labels of each."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    return [torch.tensor(part) for part in parts]


@pytest.fixture(scope="session")
def trained(digits):
    """Trains what a function makes on the digits, for some seconds; the network, test images and labels."""

    def train(make):
        images, test, labels, test_labels = digits
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = make()
            optimizer = torch.optim.Adam(net.parameters(), 2e-3)
            for _ in range(8):
                for part in torch.randperm(len(images)).split(64):
                    optimizer.zero_grad()
                    F.cross_entropy(net(images[part].float().view(-1, 1, 8, 8)), labels[part]).backward()
                    optimizer.step()
        return net.eval(), test.float().view(-1, 1, 8, 8), test_labels

    return train


@pytest.fixture(scope="session")
def cnn(trained):
    """A small network trained on the digits, test images and labels."""
    return trained(
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
        )
    )


@pytest.fixture(scope="session")
def logistic(digits):
    """Weight and bias of a multinomial logistic regression, test images and labels."""
    train, test, train_labels, test_labels = digits
    fitted = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(train, train_labels)
    weight, bias = (torch.tensor(part, dtype=torch.float32) for part in (fitted.coef_, fitted.intercept_))
    return weight, bias, test.float().view(-1, 1, 8, 8), test_labels


@pytest.fixture(scope="module")
def regression(logistic):
    """It as a network, test images and labels."""
    weight, bias, images, labels = logistic
    return Linear(weight.clone(), bias.clone()), images, labels
