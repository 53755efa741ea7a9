"""The report of a robustness evaluation: accuracies, intervals, classes, worst images, curve."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fulgurite.probes.attacks.threat import Threat
from fulgurite.probes.intervals import wilson
from fulgurite.probes.record import nearest

CUMULATIVE = "each row is what all attacks down to it leave standing"
NONE_RIGHT = "no image is classified correctly, so there was nothing to attack"
UNCHECKED = "`sanity_checks` was not run; gradient masking can make this accuracy too high"
MASKED = 0.1  # share of the correct images without a gradient above which a note is added


class Check(NamedTuple):
    """A sanity check: its value, whether that is normal for an undefended network, and a sentence on both."""

    name: str
    figure: float
    passed: bool
    says: str


@dataclass(frozen=True, eq=False)
class Stage:
    """An attack, or "clean": which images are still classified correctly after it, and how long it took."""

    name: str
    standing: Bool[Tensor, "n"]
    seconds: float


@dataclass(frozen=True, eq=False)
class Report:
    """The results of a robustness evaluation.

    Args:
        threat: how far the images might be moved.
        labels: the true class of each image.
        stages: "clean", then the attacks; each is run on the images that all before it left correct.
        images: the worst found of each: one that the network misclassifies; else the nearest to it.
        answers: the network's on those.
        confidence: its softmax probability of them.
        notes: further remarks on the numbers.
        unmoved: the network's predictions for the images as they are.
        without_gradient: the number of images that stay correct with a cross-entropy gradient that is zero or
            not finite, and the number of images checked.
        checks: the sanity checks; None where they were not run.
    """

    threat: Threat
    labels: Int[Tensor, "n"]
    stages: tuple[Stage, ...]
    images: Float[Tensor, "n c h w"]
    answers: Int[Tensor, "n"]
    confidence: Float[Tensor, "n"]
    notes: tuple[str, ...] = ()
    unmoved: Int[Tensor, "n"] | None = None
    without_gradient: tuple[int, int] = (0, 0)
    checks: tuple[Check, ...] | None = None

    head: ClassVar = ("robust accuracy after", "accuracy", "95 % interval", "n", "misclassified", "seconds")

    def accuracy(self, stage: str | int = -1) -> float:
        """The share of images correct after a stage, by its name or index; by default the last."""
        return float(self._of(stage).standing.double().mean())

    def interval(self, stage: str | int = -1) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of that: for all images of which these are a sample."""
        return wilson(int(self._of(stage).standing.sum()), len(self.labels))

    def per_class(self, stage: str | int = -1) -> dict[int, float]:
        """The accuracy on the images of each class that there is."""
        standing = self._of(stage).standing
        return {
            label: float(standing[self.labels == label].double().mean())
            for label in self.labels.unique().tolist()
        }

    def misclassified(self, stage: str | int) -> Bool[Tensor, "n"]:
        """Which images are misclassified from this stage on; in "clean", without an attack."""
        place = self.stages.index(self._of(stage))
        before = self.stages[place - 1].standing if place else torch.ones_like(self.stages[0].standing)
        return before & ~self.stages[place].standing

    def gain(self, stage: str | int) -> float:
        """By how much this stage lowered the accuracy."""
        return float(self.misclassified(stage).double().mean())

    def worst(self, count: int, curve: "Curve | None" = None) -> Int[Tensor, "few"]:
        """The images with the most confident wrong predictions under attack.

        With a radius curve of the same images, those that fall at the smallest radius come first. What is
        wrong without an attack is not among them.
        """
        sure = self.confidence.nan_to_num(1)
        order = sure.argsort(descending=True, stable=True)
        if curve is not None:
            order = order[curve.misclassified_at()[order].argsort(stable=True)]
        fooled = self.stages[0].standing & ~self.stages[-1].standing
        return order[fooled[order]][:count]

    def remarks(self) -> list[str]:
        """The remarks below the table: reliability, oddities of the network, and the notes."""
        lines = [CUMULATIVE] * (len(self.stages) > 2)
        lines += [NONE_RIGHT] * (not self.stages[0].standing.any())
        if self.unmoved is not None and (same := one_answer(self.unmoved, self.labels)):
            lines.append(same)
        return [*lines, *self.notes, *self._masking()]

    def with_checks(self, checks: Sequence[Check]) -> "Report":
        """The same report with the results of its sanity checks, which its remarks include."""
        return replace(self, checks=tuple(checks))

    def verdict(self) -> str:
        """The number of sanity checks that passed, and the names of those that failed."""
        if self.checks is None:
            return UNCHECKED
        failed = [check.name for check in self.checks if not check.passed]
        if failed:
            return f"{len(failed)} of {len(self.checks)} checks failed: {', '.join(failed)}"
        return f"all {len(self.checks)} checks passed: nothing speaks against these numbers"

    def _masking(self) -> list[str]:
        """Whether an accuracy above zero is reliable, as far as it is known."""
        if not self.stages[-1].standing.any():
            return []
        none, of = self.without_gradient
        lines = [
            f"{none} of {of} images that stand have a cross-entropy gradient that is zero or not finite: no "
            "attack can follow it (gradient masking), and the accuracy may be far too high; try a margin "
            "loss and Square"
        ] * (none > MASKED * of)
        return [*lines, self.verdict()]

    def rows(self) -> list[list[str]]:
        """A row of words for each stage, under `head`."""
        return [
            [
                f"+ {stage.name}" if place > 1 else stage.name,
                f"{self.accuracy(place):.4f}",
                "{:.4f} to {:.4f}".format(*self.interval(place)),
                str(len(self.labels)),
                str(int(self.misclassified(place).sum())),
                f"{stage.seconds:.1f}",
            ]
            for place, stage in enumerate(self.stages)
        ]

    def text(self) -> str:
        """The same as a plain table, with the threat above and the notes below."""
        return "\n".join([str(self.threat), aligned([self.head, *self.rows()], right=5), *self.remarks()])

    def as_dict(self, curve: "Curve | None" = None) -> dict[str, Any]:
        """All but the images, fit for JSON; the ten worst-off images by place, in the order of `worst`."""
        return {
            "threat": str(self.threat),
            "images": len(self.labels),
            "stages": [
                {
                    "name": stage.name,
                    "after": [one.name for one in self.stages[1 : place + 1]],
                    "accuracy": self.accuracy(place),
                    "interval": list(self.interval(place)),
                    "misclassified": int(self.misclassified(place).sum()),
                    "seconds": round(stage.seconds, 3),
                    "per_class": {str(label): share for label, share in self.per_class(place).items()},
                }
                for place, stage in enumerate(self.stages)
            ],
            "worst": [
                {
                    "image": image,
                    "label": int(self.labels[image]),
                    "answer": int(self.answers[image]),
                    "confidence": finite(float(self.confidence[image])),
                }
                for image in self.worst(10, curve).tolist()
            ],
            "notes": self.remarks(),
            "without gradient": {"images": self.without_gradient[0], "of": self.without_gradient[1]},
            "checks": self.checks
            and [{**check._asdict(), "figure": finite(check.figure)} for check in self.checks],
        }

    def _of(self, stage: str | int) -> Stage:
        named = {one.name: one for one in reversed(self.stages)}
        if isinstance(stage, str) and stage not in named:
            raise ValueError(f"no stage {stage!r}; {nearest(stage, named)}")
        return named[stage] if isinstance(stage, str) else self.stages[stage]


@dataclass(frozen=True, eq=False)
class Curve:
    """Which images are classified correctly at each radius."""

    radii: Sequence[float]
    standing: Bool[Tensor, "r n"]

    def accuracies(self) -> list[float]:
        """The robust accuracy at each radius."""
        return self.standing.double().mean(1).tolist()

    def misclassified_at(self) -> Float[Tensor, "n"]:
        """The smallest radius at which each image is misclassified; infinite where at none."""
        radii = torch.tensor([*self.radii, math.inf], device=self.standing.device)
        return radii[self.standing.sum(0)]


def one_answer(answers: Int[Tensor, "n"], labels: Int[Tensor, "n"]) -> str:
    """A sentence, if images of several labels all get the same class; else nothing."""
    if len(answers.unique()) > 1 or len(labels.unique()) < 2:
        return ""
    return f"the network predicts class {int(answers[0])} for every one of these {len(answers)} images"


def aligned(rows: Sequence[Sequence[str]], *, right: int = 0) -> str:
    """Rows of words in columns; those after the first are flush right, `right` of them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 1 <= place <= right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def finite(number: float) -> float | None:
    """The number for JSON: None if it is not finite."""
    return number if math.isfinite(number) else None
