"""A network and images whose features are kept."""

import torch
from torch import nn
from torch.utils.data import Dataset

from fulgurite.probes.representation.fingerprint import fingerprint, fingerprint_data

IMAGES = torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(9) % 3


class Net(nn.Module):
    """Two convolutions, and a number that is neither a weight nor printed."""

    def __init__(self, *, bias: bool = True, padding: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.scale = 1.0
        self.one, self.norm = nn.Conv2d(3, 4, 3, bias=bias, padding=padding), nn.BatchNorm2d(4)
        self.two, self.head = nn.Conv2d(4, 5, 3), nn.Linear(5, 3)

    def forward(self, images):
        return self.head(self.two(self.scale * self.norm(self.one(images)).relu()).mean((2, 3)))


def key(network: nn.Module | None = None, data=(IMAGES, LABELS), layers=("one", "two"), **wishes) -> str:
    return fingerprint(Net() if network is None else network, fingerprint_data(data), layers, **wishes)


def by(constant: float):
    return lambda module, args, out: out * constant


class Mapped(Dataset):
    """Images in memory, through a transform."""

    def __init__(self, images=IMAGES, labels=LABELS, transform=None):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index]
        return image if self.transform is None else self.transform(image), int(self.labels[index])


class Dims:
    """A transform with a number."""

    def __init__(self, by: float):
        self.by = by

    def __call__(self, image):
        return image * self.by
