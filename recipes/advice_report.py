"""The advisor's report as text, as JSON and as a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fulgurite.probes.counted import counted
from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import RGB
from fulgurite.recipes.advice import FOLLOWING, LECTURE, Estimate, Quadrant, Tried, recommended


@dataclass(frozen=True)
class Advice:
    """The measurements on some images, and the advice.

    Args:
        images: how many were measured on, by class.
        folds: that they were split into.
        epochs: of each training.
        curve: the accuracy of a linear classifier of each stage, by how many images it was fitted to; half of
            the training images and all of them come last.
        quadrant: the cell of the lecture's table.
        tried: the accuracy of each strategy, and of the linear classifier of the best stage.
        commands: train them.
        seconds: that the accuracies by stage took.
        untried: strategies that were left out.
    """

    images: Mapping[str, int]
    folds: int
    epochs: int
    curve: Mapping[str, Mapping[str, Estimate]]
    quadrant: Quadrant
    tried: Mapping[str, Tried]
    commands: Mapping[str, str]
    seconds: float
    untried: Sequence[str] = ()

    @property
    def strategy(self) -> str:
        """The one that is recommended."""
        return recommended(self.tried)

    @property
    def best(self) -> str:
        """The one that measured best."""
        return max(self.tried, key=lambda name: self.tried[name].accuracy.mean)

    def lines(self) -> list[str]:
        """The report as text."""
        count = sum(self.images.values())
        common = max(self.images.values()) / count
        return [
            f"{count} images of {len(self.images)} classes ({100 * common:.1f} % are of the commonest), in "
            f"{self.folds} folds; ± or, in brackets, from where to where is a 95 % interval",
            *["Two folds say little about how accuracies vary: --folds 3 or more"] * (self.folds == 2),
            "",
            f"Linear classifiers by stage, by training images ({self.seconds:.1f} s for all):",
            *_table(["stage", *self.curve], self._stages()),
            "",
            f"Strategies, after {counted(self.epochs, 'epoch')} of training; first the linear "
            f"classifier of {self.quadrant.stage}, the best one above:",
            *_table(["strategy", "accuracy", "standard error", "training s"], self._strategies()),
            *self._left_out(),
            "",
            f"{self.quadrant.sentence()}:",
            *(f"  {reason}" for reason in self.quadrant.reasons()),
            *self._verdict(),
            "",
            f"  {self.commands[self.strategy]}",
        ]

    def _stages(self) -> list[list[str]]:
        names = list(next(iter(self.curve.values())))
        return [[name, *(str(part[name]) for part in self.curve.values())] for name in names]

    def _strategies(self) -> list[list[str]]:
        return [
            [name, str(one.accuracy), f"{100 * one.accuracy.error:.1f}", f"{one.seconds:.1f}"]
            for name, one in self.tried.items()
        ]

    def _left_out(self) -> list[str]:
        if not self.untried:
            return []
        names = ",".join(self.untried)
        return [f"  not tried: {names.replace(',', ', ')}; --strategies {names} tries them"]

    def _verdict(self) -> list[str]:
        chosen, best = self.tried[self.strategy], self.tried[self.best]
        cell = self.quadrant.similar, self.quadrant.little
        lines = [f"The rule of thumb for such data (CS231n): {LECTURE[cell]}."]
        why = "the best of all that were tried"
        if self.strategy != self.best:
            why = (
                f"the cheapest within one standard error ({100 * best.accuracy.error:.1f}) of the best, "
                f"{self.best} ({best.accuracy})"
            )
        lines.append(
            f"By measurement: {self.strategy}, {chosen.accuracy} after {chosen.seconds:.3g} s of training, "
            f"{why}."
        )
        agrees = self.strategy in FOLLOWING[cell]
        lines.append(
            "Rule and measurement agree."
            if agrees
            else "That is not what the rule says; the measurement counts."
        )
        if self.strategy == "scratch":
            lines.append("The network's weights were of no use: fresh ones do as well.")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The report, for JSON."""
        cell = self.quadrant.similar, self.quadrant.little
        return {
            "images": dict(self.images),
            "folds": self.folds,
            "epochs": self.epochs,
            "linear classifiers by training images and stage": {
                count: {stage: asdict(one) for stage, one in part.items()}
                for count, part in self.curve.items()
            },
            "strategies": {name: asdict(one) for name, one in self.tried.items()},
            "similar": self.quadrant.similar,
            "little": self.quadrant.little,
            "numbers behind it": asdict(self.quadrant),
            "reasons": self.quadrant.reasons(),
            "lecture": LECTURE[cell],
            "best measured": self.best,
            "recommended": self.strategy,
            "command": self.commands[self.strategy],
            "commands": dict(self.commands),
        }

    def picture(self) -> RGB:
        """Accuracy by stage, a line for each number of training images; the last with its intervals."""
        *_, everything = self.curve.values()
        lines = {count: [one.mean for one in part.values()] for count, part in self.curve.items()}
        spans = [(max(0.0, one.low), min(1.0, one.high)) for one in everything.values()]
        return category_plot(
            list(everything),
            lines,
            ylabel="accuracy of a linear classifier",
            ymax=1.0,
            intervals=spans,
            chance=1 / len(self.images),
        )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
