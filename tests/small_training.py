"""A small network for min-max training, and batches of its images."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from fulgurite.models.losses import Adversarial, Fast, Trades
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.threat import Linf

THREAT = Linf(0.1)
ROBUST = [Adversarial(THREAT, steps=3), Trades(THREAT, steps=3), Fast(THREAT), Fast(THREAT, start="image")]
STILL = partial(pgd, steps=3, start="image")  # draws nothing
QUIET = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
NAMES = ["adversarial", "trades", "fast", "fgsm"]


class Net(nn.Module):
    """Convolution, BatchNorm, dropout and a linear layer, for images of 6 x 6."""

    def __init__(self, *, dropout: float = 0.0, norm: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, 2)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(F.relu(self.norm(self.conv(images)))).flatten(1))


def batch(count: int = 12, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.rand(count, 1, 6, 6, generator=generator) / 2
    images[torch.arange(count), 0, labels] += 0.4
    return images, labels


def net(**options) -> Net:
    torch.manual_seed(0)
    return Net(**options)
