"""Networks of five blocks, trained on digits or CIFAR-10, for the benchmark of representations."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from fulgurite.data.decoding import read_image
from fulgurite.data.digits import Digits
from fulgurite.data.image_files import images_below

BLOCKS = ["3", "7", "11", "15", "19"]
CIFAR = {"train": 10_000, "test": 2000}
Images = tuple[Tensor, Tensor]


def network(channels: int, width: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    parts, inside = [], channels
    for factor, pool in ((1, 2), (2, 2), (4, 2), (8, 1), (8, 1)):
        out = factor * width
        parts += [nn.Conv2d(inside, out, 3, 1, 1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(pool)]
        inside = out
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


def trained(data: Images, *, width: int, epochs: int, seed: int, flips: bool) -> nn.Sequential:
    images, labels = data
    net = network(images.shape[1], width, seed).train()
    steps = torch.optim.AdamW(net.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(steps, 8e-3, epochs * -(-len(images) // 64))
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            batch = images[rows]
            if flips:
                mirrored = torch.rand(len(batch)) < 0.5
                batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            loss = F.cross_entropy(net(batch), labels[rows])
            steps.zero_grad()
            loss.backward()
            steps.step()
            schedule.step()
    return net.eval()


def digits() -> tuple[Images, Images]:
    train, _, test = Digits(size=32).parts()
    return (train.images, train.labels), (test.images, test.labels)


def cifar(folder: Path, *, quick: bool) -> tuple[Images, Images]:
    found = []
    for part, count in CIFAR.items():
        files = sorted(images_below(folder / part))
        names = sorted({file.parent.name for file in files})
        files = files[:: max(1, len(files) // (count // 4 if quick else count))]
        images = torch.stack([pil_to_tensor(read_image(file, channels=3)) for file in files]) / 255
        found.append((images, torch.tensor([names.index(file.parent.name) for file in files])))
    return found[0], found[1]
