"""Calibration of over-trained networks of digits, before and after temperature scaling.

python -m benchmarks.calibration [--quick] [--picture FILE]

A small CNN memorises 60 images of each digit: 300 steps on all of them, without augmentation or weight decay.
The temperature is fitted on half of the other images and measured on the rest, 600; "all" are those of five
networks, each scaled by its own temperature. "By chance" is the mean error of labels drawn by the scaled
probabilities: what a perfectly calibrated network would show on so few images. Bar: all below .02.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import show
from fulgurite.data.digits import Digits
from fulgurite.probes.predict import predict
from fulgurite.probes.render import write
from fulgurite.probes.representation.calibration import calibration, fitted_temperature
from fulgurite.probes.representation.render_calibration import reliability_diagram

PER_CLASS, STEPS, DRAWS = 60, 300, 50


class Measured(NamedTuple):
    """Probabilities of the images that are measured on, as trained and scaled, and their labels."""

    before: Tensor
    after: Tensor
    labels: Tensor
    temperature: float


def measured(seed: int, *, steps: int = STEPS) -> Measured:
    """One network's."""
    logits, labels = unseen(seed, steps)
    half = len(labels) // 2
    temperature = fitted_temperature(logits[:half], labels[:half])
    logits, labels = logits[half:], labels[half:]
    return Measured(logits.softmax(1), (logits / temperature).softmax(1), labels, temperature)


def pooled(found: Sequence[Measured]) -> Measured:
    """All networks' images together, each network by its own temperature; the mean of these."""
    return Measured(
        torch.cat([own.before for own in found]),
        torch.cat([own.after for own in found]),
        torch.cat([own.labels for own in found]),
        sum(own.temperature for own in found) / len(found),
    )


def by_chance(probabilities: Tensor) -> float:
    """The mean error of labels that are drawn by these probabilities."""
    draws = torch.multinomial(probabilities, DRAWS, replacement=True).T
    return sum(calibration(probabilities, own).error for own in draws) / DRAWS


def unseen(seed: int, steps: int) -> tuple[Tensor, Tensor]:
    """Logits and labels of the images that the network has not seen."""
    train, _, _ = Digits(size=16, shift=0, noise=0, per_class=PER_CLASS, seed=seed).parts()
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(train.images), train.labels).backward()
        optimizer.step()
    parts = Digits(size=16, shift=0, noise=0, seed=seed).parts()
    images, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    seen = {image.numpy().tobytes() for image in train.images}
    rest = torch.tensor([place for place, image in enumerate(images) if image.numpy().tobytes() not in seen])
    rest = rest[torch.randperm(len(rest))]
    return predict(net, images[rest]).double(), labels[rest]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one network")
    parser.add_argument("--picture", type=Path, help="where to write the last network's reliability diagram")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = [measured(seed) for seed in range(1 if args.quick else 5)]
    cases = {**{str(seed): own for seed, own in enumerate(found)}, "all": pooled(found)}
    rows = [
        [
            name,
            len(own.labels),
            calibration(own.before, own.labels).error,
            calibration(own.after, own.labels).error,
            by_chance(own.after),
            own.temperature,
        ]
        for name, own in cases.items()
    ]
    if args.picture:
        panels = {
            "as trained": calibration(cases["all"].before, cases["all"].labels),
            "after temperature scaling": calibration(cases["all"].after, cases["all"].labels),
        }
        write(reliability_diagram(panels), args.picture)
    show(
        "Expected calibration error of over-trained networks of digits",
        ["network", "images", "as trained", "scaled", "by chance", "temperature"],
        rows,
    )


if __name__ == "__main__":
    main()
