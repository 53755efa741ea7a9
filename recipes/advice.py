"""Advice on fine-tuning from measured accuracies: a strategy, with its uncertainty."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

from jaxtyping import Bool
from scipy.stats import t as student
from torch import Tensor

from fulgurite.probes.intervals import wilson

Z = NormalDist().inv_cdf(0.975)
FLAT = 0.02
"""A learning curve is flat where it rises by less than this; two points of accuracy."""
LECTURE = {
    (True, True): "a linear classifier on top",
    (False, True): "a linear classifier from an earlier stage",
    (True, False): "fine-tune a few stages",
    (False, False): "fine-tune many stages",
}
"""The strategies of the lecture's table, for data that are (similar, little)."""
PROBES = {True: "probe of the last stage", False: "probe of an earlier stage"}
"""Names of linear classifiers of cached features, by whether the stage is the last."""
FOLLOWING = {
    (True, True): (PROBES[True], "linear"),
    (False, True): (PROBES[False],),
    (True, False): ("last",),
    (False, False): ("layerwise", "gradual", "full"),
}
"""The strategies and linear probes for each cell of the table."""


@dataclass(frozen=True)
class Estimate:
    """A measured mean, its standard error, and how far its 95 % interval reaches to either side."""

    mean: float
    error: float
    half: float

    @property
    def low(self) -> float:
        """Where the interval begins."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Where it ends."""
        return self.mean + self.half

    def __str__(self) -> str:
        """As a percentage; an interval that exceeds 0 to 100 % is clipped, and printed by its ends."""
        if self.low >= 0 and self.high <= 1:
            return f"{100 * self.mean:.1f} ± {100 * self.half:.1f} %"
        return f"{100 * self.mean:.1f} ({100 * max(0, self.low):.1f} to {100 * min(1, self.high):.1f}) %"


def estimate(values: Sequence[float], *, images: int | None = None) -> Estimate:
    """The mean of repeated measurements, with Student's interval of their spread.

    Where they are accuracies, and `images` the number of different images that all of them together were
    counted on, the binomial part of the spread is known (Wilson's interval): Student's t is only for the
    rest, and the error is never less than the binomial one.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} measurements have no spread; wanted two or more")
    mean, spread, counted = fmean(values), variance(values) / len(values), 0.0
    if images is not None:
        low, high = wilson(round(mean * images), images)
        counted = ((high - low) / 2 / Z) ** 2
    rest = max(0.0, spread - counted)
    t = float(student.ppf(0.975, len(values) - 1))
    return Estimate(mean, math.sqrt(counted + rest), math.sqrt(Z**2 * counted + t**2 * rest))


def ahead(one: Bool[Tensor, "n"], other: Bool[Tensor, "n"], *, among: int = 1) -> Estimate:
    """The difference of two accuracies on the same images, with an error from where they disagree.

    The interval is widened (Bonferroni) for a choice among `among` comparisons. Where the two never disagree,
    the error is that of one image.
    """
    count = len(one)
    mean = float((one.double() - other.double()).mean())
    apart = max(1.0, float((one != other).sum()))
    error = math.sqrt(max(apart / count - mean**2, 1 / count**2) / count)
    return Estimate(mean, error, NormalDist().inv_cdf(1 - 0.025 / among) * error)


@dataclass(frozen=True)
class Quadrant:
    """A cell of the table, and the numbers behind it.

    Args:
        stage: the stage with the best linear classifier.
        earlier: the best stage before the last; None for a network of one stage.
        gain: by how much that one is above the last.
        rise: by how much the best stage's accuracy rises from half of the training images to all of them.
    """

    stage: str
    earlier: str | None
    gain: Estimate | None
    rise: Estimate

    @property
    def similar(self) -> bool:
        """Whether the data are similar to the backbone's: no earlier stage is surely above the last."""
        return self.gain is None or self.gain.low <= 0

    @property
    def little(self) -> bool:
        """Whether there are few images: the learning curve rises, or may rise."""
        return self.rise.low > 0 or self.rise.high > FLAT

    def reasons(self) -> list[str]:
        """The rules and the measurements behind them, one sentence for each."""
        lines = ["the network has one stage: counts as similar"]
        if self.gain is not None:
            verdict = "different: an earlier stage beats the last one"
            if self.similar:
                verdict = "similar: no earlier stage beats the last one"
            lines = [f"{verdict}; {self.earlier} less the last: {_signed(self.gain)} points"]
        verdict = "many images: the learning curve is flat"
        if self.little:
            rises = "still rises" if self.rise.low > 0 else "is not known to be flat"
            verdict = f"few images: the learning curve {rises}"
        lines.append(f"{verdict}; all training images less half of them: {_signed(self.rise)} points")
        return lines

    def sentence(self) -> str:
        """How similar these images are to those of the network's weights, and whether there are enough."""
        kind = "similar to" if self.similar else "different from"
        number = "few" if self.little else "many"
        return f"These images seem {kind} those of the network's own training, and there are {number} of them"


def quadrant(all_: Mapping[str, Bool[Tensor, "n"]], half: Mapping[str, Bool[Tensor, "n"]]) -> Quadrant:
    """The cell of the table that measurements support.

    Args:
        all_: which images were classified correctly by a linear classifier of each stage, from the first to
            the last, fitted to all training images.
        half: likewise, fitted to half of them.

    Raises:
        ValueError: no stages, or not the same ones.
    """
    if not all_ or list(all_) != list(half):
        raise ValueError(
            f"stages {', '.join(all_) or 'none'} and {', '.join(half) or 'none'}; wanted the same"
        )
    *before, last = all_
    accuracy = {stage: float(right.double().mean()) for stage, right in all_.items()}
    # the last of equal ones
    best = max(reversed([*all_]), key=lambda stage: accuracy[stage])
    earlier = max(reversed(before), key=lambda stage: accuracy[stage], default=None)
    gain = None if earlier is None else ahead(all_[earlier], all_[last], among=len(before))
    return Quadrant(best, earlier, gain, ahead(all_[best], half[best]))


@dataclass(frozen=True)
class Tried:
    """The accuracy of a strategy, and the seconds that its training took."""

    accuracy: Estimate
    seconds: float


def recommended(tried: Mapping[str, Tried]) -> str:
    """The cheapest strategy within one standard error of the best; Breiman et al. 1984.

    Raises:
        ValueError: none was tried.
    """
    if not tried:
        raise ValueError("no strategy was tried; wanted at least one")
    best = max(tried.values(), key=lambda one: one.accuracy.mean).accuracy
    enough = [name for name, one in tried.items() if one.accuracy.mean >= best.mean - best.error]
    return min(enough, key=lambda name: tried[name].seconds)


def command(recipe: str, knobs: Mapping[str, object]) -> str:
    """The command that trains a recipe with these knobs; those that are None are left out."""
    words = ["fulgurite", "fit", recipe]
    for name, value in knobs.items():
        if value is not None:
            words += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    return shlex.join(words)


def _signed(points: Estimate) -> str:
    return f"{100 * points.mean:+.1f} ± {100 * points.half:.1f}"
