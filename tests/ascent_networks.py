"""A linear and a convolutional network, and grey canvases, for gradient ascent on images."""

import torch
from torch import nn

from fulgurite.probes.synthesis.canvas import Pixels

SHAPE = (3, 8, 8)


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(216, 4)
    ).train()


def grey(count: int) -> Pixels:
    return Pixels(torch.full((count, *SHAPE), 0.5))
