"""A small CNN trained on the digits in some seconds, for tests of trained networks."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fulgurite.data.digits import Digits
from fulgurite.probes.frozen_eval import same_randomness

SIZE = 32
Images = tuple[Tensor, Tensor]


def network(seed: int = 0) -> nn.Sequential:
    """Five blocks of convolutions, averaged over positions; untrained."""
    torch.manual_seed(seed)
    blocks = [
        part
        for inside, out, pool in ((1, 8, 2), (8, 16, 2), (16, 32, 2), (32, 64, 1), (64, 64, 1))
        for part in (nn.Conv2d(inside, out, 3, 1, 1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(pool))
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


@cache
def digits() -> tuple[Images, Images]:
    """Training and test images, 32 pixels a side, with their labels."""
    train, _, test = Digits(size=SIZE).parts()
    return (train.images, train.labels), (test.images, test.labels)


def trained(labels: Tensor | None = None, *, epochs: int = 8, seed: int = 0) -> nn.Sequential:
    """The network after some epochs on the training images, or on other labels of them."""
    images, own = digits()[0]
    labels = own if labels is None else labels
    with same_randomness(images.device):
        net = network(seed).train()
        steps = torch.optim.AdamW(net.parameters(), 4e-3)
        count = epochs * -(-len(images) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(steps, 8e-3, count)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(64):
                loss = F.cross_entropy(net(images[rows]), labels[rows])
                steps.zero_grad()
                loss.backward()
                steps.step()
                schedule.step()
    return net.eval()


@cache
def trained_once() -> nn.Sequential:
    """The same for all tests; none may change it."""
    return trained()


def shifted(images: Tensor, pixels: int) -> Tensor:
    """Images moved to the right and down, filled with black."""
    return F.pad(images, (pixels, 0, pixels, 0))[..., : images.shape[2], : images.shape[3]]
