"""Every attribution method with small settings, and a small network for it."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.methods import METHODS, OF_ATTENTION
from fulgurite.probes.objectives import channel, class_score, direction, probability, unit

IMAGES = torch.rand(3, 3, 14, 12, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([2, 0, 1])
SMALL = {
    "smoothgrad": {"draws": 3},
    "integrated_gradients": {"steps": 4},
    "occlusion": {"window": 4},
    "rise": {"masks": 12, "cells": 3},
    "lime": {"segments": 6, "samples": 30},
}

ASKED = {
    "class": class_score(1),
    "class of each image": class_score(CLASSES),
    "channel": channel("4", 3),
    "channel of each image": channel("4", CLASSES),
    "direction": direction("4", torch.tensor([1.0, -1.0, 0.5, 2.0, -0.3])),
    "unit": unit("4", 3, row=1, column=2),
    "probability": probability(CLASSES),
    "sum": class_score(CLASSES) - 0.5 * channel("4", 1),
    "of the output": 2 * class_score(0) - class_score(CLASSES),
}


def small(channels: int = 3) -> nn.Sequential:
    """Convolutions, batch norm with statistics that have moved, ReLUs, max-pooling and a linear layer."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(channels, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(5, 3),
    )
    network(torch.rand(8, channels, 14, 12))
    return network


def mapped(name, network, images=IMAGES, objective=ASKED["class of each image"], **settings):
    return METHODS[name](network, images, objective, **{**SMALL.get(name, {}), **settings})


def close(ours, expected, *, within: float = 1e-5):
    """Equal up to rounding, relative to the largest value."""
    assert_close(ours, expected, rtol=0, atol=within * expected.abs().max().item())


OF_ANY_NETWORK = [name for name in METHODS if name not in OF_ATTENTION]
every_method = pytest.mark.parametrize("name", OF_ANY_NETWORK)
