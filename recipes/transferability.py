"""How transferable is each layer (Yosinski et al. 2014): first stages copied, frozen or fine-tuned."""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, NamedTuple

from scipy.stats import t as student
from torch import nn

from fulgurite.data.image_data_module import ImageData
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build, check_takes
from fulgurite.models.stages import Stage, stages_of
from fulgurite.models.weights import ends
from fulgurite.probes.plots import category_plot
from fulgurite.probes.render import RGB, noted, stacked
from fulgurite.recipes.advice import Estimate, estimate
from fulgurite.recipes.quick_fit import quick_fit, quiet
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.transfer import seeded

KINDS = {
    "BnB": "the same task, frozen",
    "BnB+": "the same task, fine-tuned",
    "AnB": "another task, frozen",
    "AnB+": "another task, fine-tuned",
}
"""The source of the first n stages of a network of task B, by its name in the paper."""


class Copied(NamedTuple):
    """A training: the network whose first `depth` stages are copied, and whether they are fine-tuned."""

    kind: str
    depth: int

    @property
    def source(self) -> str:
        """The task whose network gives the stages."""
        return self.kind[0]

    @property
    def frozen(self) -> bool:
        """Whether the copied stages are frozen."""
        return not self.kind.endswith("+")


@dataclass(frozen=True)
class Plan:
    """The training settings, the same for all networks.

    Args:
        network: by name.
        epochs: of each.
        lr: the highest learning rate.
    """

    network: str
    epochs: int
    lr: float = 4e-3

    def fresh(self, data: ImageData, seed: int) -> nn.Module:
        """A network for these data, with weights of this seed."""
        seeded(seed)
        network = build(
            self.network, classes=len(data.classes), channels=data.channels, mean=data.mean, std=data.std
        )
        check_takes(network, data.channels, data.size)
        return network

    def fit(self, network: nn.Module, data: ImageData, seed: int, frozen: Sequence[Stage] = ()) -> float:
        """Train all but the frozen stages, and measure the accuracy on the test images."""
        table = {**{stage.pattern: None for stage in frozen}, "": 1.0} if frozen else None
        with quiet():
            model = Classifier(network, classes=len(data.classes), lr=self.lr, table=table, seed=seed)
            return quick_fit(Recipe(model, data, self.epochs), part="test").accuracy


def copied(network: nn.Module, source: nn.Module, stages: Sequence[Stage]) -> None:
    """Give a network the weights and statistics that another one has in these stages.

    Raises:
        ValueError: the networks differ there.
    """
    own, given = network.state_dict(), source.state_dict()
    names = [
        name
        for name in own
        if not name.startswith("normalise.") and any(re.match(s.pattern, name) for s in stages)
    ]
    if wrong := [name for name in names if name not in given or given[name].shape != own[name].shape]:
        raise ValueError(f"{wrong[0]} is not of the same shape in both networks; wanted the same images")
    network.load_state_dict({**own, **{name: given[name].clone() for name in names}})


def study(
    plan: Plan,
    tasks: Callable[[int], tuple[ImageData, ImageData]],
    *,
    seeds: int,
    kinds: Collection[str] = tuple(KINDS),
) -> Iterator["Transferability"]:
    """Train networks of task B with the first stages of others, for each seed; yields the results so far.

    Args:
        plan: of each training.
        tasks: the data of tasks A and B for a seed.
        seeds: how often everything is repeated, with fresh weights and halves.
        kinds: which of `KINDS` are trained.

    Raises:
        ValueError: fewer than two seeds, no kind or an unknown one, or a network of one stage.
    """
    if seeds < 2:
        raise ValueError(f"seeds={seeds}; wanted 2 or more, for intervals")
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"kinds {', '.join(kinds) or 'none'}; wanted some of {', '.join(KINDS)}")
    base, source, found = list[float](), list[float](), dict[Copied, list[float]]()
    for seed in range(seeds):
        halves = tasks(seed)
        stages, accuracies, copies = of_seed(plan, halves, seed, kinds)
        base.append(accuracies["B"])
        source.append(accuracies["A"])
        for one, own in copies.items():
            found.setdefault(one, []).append(own)
        if seed:
            chance = 1 / len(halves[1].classes)
            yield Transferability(stages, tuple(base), dict(found), source=tuple(source), chance=chance)


def of_seed(
    plan: Plan, tasks: tuple[ImageData, ImageData], seed: int, kinds: Collection[str]
) -> tuple[tuple[str, ...], dict[str, float], dict[Copied, float]]:
    """Names of the stages, accuracies from scratch on either task, and on B of each kind and depth."""
    data = dict(zip("AB", tasks, strict=True))
    known = {task: plan.fresh(own, seed) for task, own in data.items()}
    stages = _stages(known["B"], data["B"])
    base = {task: plan.fit(known[task], own, seed) for task, own in data.items()}
    found = dict[Copied, float]()
    for count in range(1, len(stages) + 1):
        for kind in kinds:
            one = Copied(kind, count)
            # the stages above are re-initialised: they must not be those trained with the copied ones
            network = plan.fresh(data["B"], 1000 + seed)
            copied(network, known[one.source], stages[:count])
            frozen = stages[:count] if one.frozen else ()
            found[one] = plan.fit(network, data["B"], 1000 + seed, frozen)
    return tuple(stage.name for stage in stages), base, found


@dataclass(frozen=True)
class Transferability:
    """Test accuracies of task B, by seed.

    Args:
        stages: names of those that were copied, from the first on.
        base: of networks that learnt B from scratch.
        found: of those with copied stages.
        source: of the networks of task A, on A: one that learnt little has little to transfer.
        chance: the accuracy of guesses on B, for the picture; None draws no line.
    """

    stages: tuple[str, ...]
    base: tuple[float, ...]
    found: Mapping[Copied, Sequence[float]]
    source: tuple[float, ...] = ()
    chance: float | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which were trained."""
        return tuple(kind for kind in KINDS if Copied(kind, 1) in self.found)

    def gain(self, kind: str, count: int) -> Estimate:
        """By how much a kind is above the base, of the same seeds, with its 95 % interval."""
        return self.difference(self.found[Copied(kind, count)], self.base)

    def generality(self, count: int) -> Estimate:
        """By how much stages of the other task are above those of the same one, both frozen."""
        return self.difference(self.found[Copied("AnB", count)], self.found[Copied("BnB", count)])

    @staticmethod
    def difference(ones: Sequence[float], others: Sequence[float]) -> Estimate:
        """The mean difference of accuracies of the same seeds."""
        return estimate([one - other for one, other in zip(ones, others, strict=True)])

    def marks(self) -> dict[int, list[str]]:
        """By number of stages, the significant effects: a co-adaptation dip, a drop of generality.

        A mean difference counts that is below 0 at 95 %, for all stages together (Bonferroni).
        """
        found = dict[int, list[str]]()
        for count in range(1, len(self.stages) + 1):
            same, other = (self.found.get(Copied(kind, count)) for kind in ("BnB", "AnB"))
            if same and _below(same, self.base, among=len(self.stages)):
                found.setdefault(count, []).append("co-adaptation dip")
            if same and other and _below(other, same, among=len(self.stages)):
                found.setdefault(count, []).append("generality drop")
        return found

    def lines(self) -> list[str]:
        """The table as text."""
        compared = {"AnB", "BnB"} <= set(self.kinds)
        head = ["copied up to", *self.kinds, *(["AnB less BnB"] if compared else []), ""]
        rows = []
        for count, name in enumerate(self.stages, 1):
            cells = [str(estimate(self.found[Copied(kind, count)])) for kind in self.kinds]
            if compared:
                drop = self.generality(count)
                cells.append(f"{100 * drop.mean:+.1f} ± {100 * drop.half:.1f}")
            rows.append([f"{count} {name}", *cells, ", ".join(self.marks().get(count, []))])
        widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
        table = [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        ]
        return [
            f"Test accuracy on task B, {len(self.base)} seeds, with 95 % intervals; trained from scratch: "
            f"{estimate(self.base)}",
            *([f"Networks of task A, on A: {estimate(self.source)}"] if len(self.source) > 1 else []),
            *(f"{kind}: first stages of a network of {KINDS[kind]}" for kind in self.kinds),
            "",
            *table,
        ]

    def as_dict(self) -> dict[str, Any]:
        """All accuracies, for JSON."""
        return {
            "stages": list(self.stages),
            "from scratch": list(self.base),
            "task A": list(self.source),
            "copied": [
                {"kind": one.kind, "stages": one.depth, "accuracies": list(values)}
                for one, values in self.found.items()
            ],
            "marks": {str(count): marks for count, marks in self.marks().items()},
        }

    def picture(self) -> RGB:
        """Accuracy by the number of copied stages: frozen ones above, fine-tuned ones below."""
        panels = {"frozen": ("BnB", "AnB"), "fine-tuned": ("BnB+", "AnB+")}
        known = {title: [one for one in kinds if one in self.kinds] for title, kinds in panels.items()}
        shown = [kinds for kinds in known.values() if kinds]
        whose = " and ".join(kinds[-1] for kinds in shown)
        note = f"bars: 95 % intervals of the mean of {whose} over {len(self.base)} seeds (Student's t)"
        return noted(stacked([self._panel(kinds, title) for title, kinds in known.items() if kinds]), note)

    def _panel(self, kinds: Sequence[str], title: str) -> RGB:
        base = estimate(self.base)
        values = {
            kind: [estimate(self.found[Copied(kind, n + 1)]) for n in range(len(self.stages))]
            for kind in kinds
        }
        marks = self.marks() if kinds[0] == "BnB" else {}
        names = ["none", *(_marked(name, marks.get(n, [])) for n, name in enumerate(self.stages, 1))]
        lines = {"from scratch": [base.mean] * len(names)}
        lines |= {kind: [base.mean, *(one.mean for one in own)] for kind, own in values.items()}
        last = [base, *values[kinds[-1]]]
        spans = [(max(0.0, one.low), min(1.0, one.high)) for one in last]
        return category_plot(
            names,
            lines,
            ylabel=f"test accuracy on B, copied stages {title}",
            ymax=1.0,
            intervals=spans,
            chance=self.chance,
        )


def _below(ones: Sequence[float], others: Sequence[float], *, among: int) -> bool:
    """Whether accuracies are below those of the same seeds, of this many comparisons."""
    gaps = [one - other for one, other in zip(ones, others, strict=True)]
    reach = float(student.ppf(1 - 0.025 / among, len(gaps) - 1)) * math.sqrt(variance(gaps) / len(gaps))
    return fmean(gaps) + reach < 0


def _marked(name: str, marks: Sequence[str]) -> str:
    short = {"co-adaptation dip": "dip", "generality drop": "drop"}
    return f"{name} ({', '.join(short[mark] for mark in marks)})" if marks else name


def _stages(network: nn.Module, data: ImageData) -> list[Stage]:
    """Those before the head."""
    found = stages_of(network, shape=(data.channels, data.size, data.size))
    if len(found) < 2:
        raise ValueError(f"this {type(network).__name__} has no stage before its head {ends(network)[1]}")
    return found[:-1]
