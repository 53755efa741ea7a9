"""A small network of two convolutions and a head, with in-place ReLUs and BatchNorm, and images for it."""

import torch
from torch import nn

IMAGES = torch.rand(10, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def small() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    parts += [nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(216, 5)]
    network = nn.Sequential(*parts, nn.Tanh(), nn.Linear(5, 3))
    network(IMAGES + 1)  # statistics other than 0 and 1
    return network
