"""Backbones ranked for some images without training, and how well the ranking agrees with measurements."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from scipy.stats import weightedtau
from torch import Tensor

from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import RGB
from fulgurite.recipes.advice import Estimate

SMALL = (
    *("torchvision/resnet18", "torchvision/resnet34", "torchvision/mobilenet_v2"),
    *("torchvision/mobilenet_v3_small", "torchvision/mobilenet_v3_large", "torchvision/squeezenet1_1"),
    *("torchvision/shufflenet_v2_x1_0", "torchvision/mnasnet1_0", "torchvision/regnet_y_400mf"),
    "torchvision/efficientnet_b0",
)
"""Ten small networks with ImageNet's weights: 5 to 90 MB each."""
RESAMPLES = 200


@dataclass(frozen=True)
class Backbone:
    """A network's scores on some images, and its accuracy where it was measured.

    Args:
        name: as typed.
        dimensions: of the features.
        scores: H-Score and LogME, by name.
        seconds: that features and each score took, and the measurement.
        accuracy: by folds; None where it was not measured.
        right: which images were classified correctly.
        why: it could not be scored.
    """

    name: str
    dimensions: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    accuracy: Estimate | None = None
    right: Bool[Tensor, "n"] | None = None
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """All but single images, for JSON."""
        found: dict[str, Any] = {"network": self.name}
        if self.why:
            return {**found, "not scored": self.why}
        found |= {"dimensions": self.dimensions, **self.scores, "seconds": dict(self.seconds)}
        if self.accuracy is not None:
            found["accuracy"] = {
                "mean": self.accuracy.mean,
                "low": self.accuracy.low,
                "high": self.accuracy.high,
            }
        return found


def ranked(found: Sequence[Backbone]) -> list[Backbone]:
    """The best first, by the sum of the ranks of both scores, of equals by LogME; unscored ones come last."""
    scored = [one for one in found if one.scores]
    place = dict.fromkeys((one.name for one in scored), 0)
    for score in scored[0].scores if scored else ():
        for rank, one in enumerate(sorted(scored, key=lambda own: -own.scores[score])):
            place[one.name] += rank
    scored.sort(key=lambda one: (place[one.name], -one.scores["LogME"]))
    return [*scored, *(one for one in found if not one.scores)]


@dataclass(frozen=True)
class Agreement:
    """Weighted tau of a score and the measured accuracies, from -1 to 1, and its 95 % interval.

    The interval is by bootstrap over the images, for the accuracies only.
    """

    tau: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.tau:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def agreement(
    scores: Sequence[float], rights: Float[Tensor, "networks n"], *, seed: int = 0
) -> Agreement | None:
    """How well scores rank networks, where the best count more (Vigna 2015, doi.org/10.1145/2736277.2741088).

    None for fewer than three networks, or where all accuracies are equal.
    """
    if len(scores) < 3:
        return None
    tau = _tau(scores, rights.mean(1))
    if not math.isfinite(tau):
        return None
    generator = torch.Generator().manual_seed(seed)
    count = rights.shape[1]
    drawn = torch.randint(count, (RESAMPLES, count), generator=generator)
    taus = [_tau(scores, rights[:, rows].mean(1)) for rows in drawn]
    known = torch.tensor([one for one in taus if math.isfinite(one)], dtype=torch.float64)
    low, high = torch.quantile(known, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Agreement(tau, low, high)


def _tau(scores: Sequence[float], accuracies: Tensor) -> float:
    # ties as in scipy: the mean of both rankings
    found: Any = weightedtau(torch.tensor(scores).double().numpy(), accuracies.double().numpy())
    return float(found.statistic)


@dataclass(frozen=True)
class Ranking:
    """Backbones in the order of their scores, the best first.

    Args:
        backbones: in this order.
        images: how many were measured on.
        classes: how many there are.
        folds: of the measurement.
        measure: what was measured, in words.
    """

    backbones: Sequence[Backbone]
    images: int
    classes: int
    folds: int
    measure: str

    def agreements(self) -> dict[str, Agreement | None]:
        """Of each score, on the networks that were measured."""
        known = [one for one in self.backbones if one.right is not None]
        names = list(known[0].scores) if known else []
        rights = (
            torch.stack([one.right.double() for one in known if one.right is not None]) if known else None
        )
        return {
            name: None if rights is None else agreement([one.scores[name] for one in known], rights)
            for name in names
        }

    def best(self) -> Backbone | None:
        """The one that measured best."""
        known = [one for one in self.backbones if one.accuracy is not None]
        return max(known, key=lambda one: one.accuracy.mean if one.accuracy else 0.0, default=None)

    def lines(self) -> list[str]:
        """The report as text."""
        head = ["network", "features", "H-Score", "LogME", "s", f"measured, {self.folds} folds"]
        rows = []
        for one in self.backbones:
            if one.why:
                rows.append([one.name, "", "", "", "", one.why])
                continue
            scores = [f"{value:.4f}" for value in one.scores.values()]
            took = f"{one.seconds['features']:.1f} + {sum(one.seconds[name] for name in one.scores):.2f}"
            rows.append([one.name, str(one.dimensions), *scores, took, str(one.accuracy or "")])
        widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
        table = [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        ]
        lines = [
            f"{self.images} images of {self.classes} classes; scores of the last stage's features need no "
            f"training; s: features and scores; measured: {self.measure}",
            "",
            *table,
            "",
        ]
        for name, own in self.agreements().items():
            lines.append(
                f"{name} ranks the measured networks with a weighted tau of {own}"
                if own is not None
                else f"{name}: a weighted tau needs three measured networks of different accuracy"
            )
        if (best := self.best()) is not None:
            lines += ["", f"best measured: {best.name}, {best.accuracy}"]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The report, for JSON."""
        return {
            "images": self.images,
            "classes": self.classes,
            "folds": self.folds,
            "measured": self.measure,
            "networks": [one.as_dict() for one in self.backbones],
            "weighted tau": {
                name: own and {"tau": own.tau, "low": own.low, "high": own.high}
                for name, own in self.agreements().items()
            },
        }

    def picture(self) -> RGB:
        """Accuracies of the measured networks with their intervals, in the order of the scores."""
        known = [(one.name.rpartition("/")[2], one.accuracy) for one in self.backbones if one.accuracy]
        return category_plot(
            [name for name, _ in known],
            {"accuracy": [own.mean for _, own in known]},
            ylabel="accuracy, networks in the order of H-Score and LogME",
            ymax=1.0,
            intervals=[(max(0.0, own.low), min(1.0, own.high)) for _, own in known],
            chance=1 / max(2, self.classes),
        )
