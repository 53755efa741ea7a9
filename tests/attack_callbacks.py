"""A linear network, images around mid-grey, and what a callback for attacks logs of them."""

from pathlib import Path

import somebody
import torch
from torch import nn

from fulgurite.callbacks.framework.artifacts import Picture, Scalar
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.frozen_eval import frozen_eval

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


class Linear(nn.Module):
    """Two logits, w.x and -w.x, of 3 x 4 x 4 images; w is the first weight row."""

    def __init__(self):
        super().__init__()
        self.row = nn.Linear(48, 2, bias=False)
        weight = torch.randn(48, generator=torch.Generator().manual_seed(0))
        self.row.weight = nn.Parameter(torch.stack([weight, -weight]))

    def forward(self, images):
        return self.row((images - 0.5).flatten(1))


def sample(count: int = 150, *, labels: bool = True, classes: int = 2) -> Sample:
    """Images around mid-grey, so that no pixel meets its bound, with the linear network's own labels."""
    images = 0.5 + 0.02 * torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers = Linear()(images).argmax(1)
    names = tuple(f"class {k}" for k in range(classes))
    return Sample(images, answers if labels else None, names, torch.device("cpu"))


def looked(probe, given: Sample, net: nn.Module | None = None, *, ranks: int = 1) -> dict:
    """What the probe pins, the subjects shared by this many processes."""
    with frozen_eval(net or Linear()) as own:
        subjects = probe.subjects(own, given)
        shares = [probe.observe(own, given, subjects[rank::ranks]) for rank in range(ranks)]
        seen = {key: one for mine in shares for key, one in mine.items()}
        return dict(probe.compose({subject: seen[subject] for subject in subjects}, given))


def pixels(artifacts: dict) -> dict[str, torch.Tensor]:
    return {tag: item.pixels for tag, item in artifacts.items() if isinstance(item, Picture)}


def numbers(artifacts: dict) -> dict[str, float]:
    return {tag: float(item.value) for tag, item in artifacts.items() if isinstance(item, Scalar)}


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4))


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Linear()

    def forward(self, images):
        return self.net(images).softmax(1)


def steps_of(folder: Path) -> dict[str, list[int]]:
    return {tag: [step for step, _ in values] for tag, values in somebody.scalars(folder).items()}
