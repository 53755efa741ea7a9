"""Short runs: at how many images probes look, which of them wait for the end, and which are left out."""

from collections.abc import Collection, Mapping, Sequence
from math import inf
from time import perf_counter

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from fulgurite.callbacks.framework.budget import LAST, Budget
from fulgurite.callbacks.framework.cost import Cost, cost_of, training_seconds
from fulgurite.callbacks.framework.cost_words import at_fewer
from fulgurite.callbacks.framework.probe import Probe
from fulgurite.probes.distributed import broadcast

PART = 0.4
"""Of the training time, for the first and the last run of all probes: with a tenth more for those between, a
third of a run is probes."""
MEASURING = 1 / 3  # of what the first and last runs may take, for measuring them
LONGER = 1.5  # times what it was estimated at: a training that is longer can afford more


class ShortRun:
    """What the probes of one training can afford.

    Args:
        budget: of all that have one; its floor is free.
        probes: all of them.
        able: those that can run.
        first_step: at which this process begins to train, now.
    """

    def __init__(self, budget: Budget, probes: Sequence[Probe], able: Sequence[Probe], first_step: int):
        self.flexible = [one for one in able if one.fewer is not None and one.budget is not None]
        self.budget, self.costs = budget, dict[str, Cost]()
        self.training: float | None = None
        self.seconds = 0.0
        """That estimating the training time has taken."""
        self._probes, self._first_step = probes, first_step
        # what has been prepared counts as the probes'
        self._began = perf_counter() - sum(one.seconds for one in probes)

    def begin(self, spent: float, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let probes look at fewer subjects or images where the training cannot afford all of them.

        Each looks at a few first, without keeping anything, to measure the cost, as far as there is time for
        that. Those of which not even the fewest can be afforded twice do not run before training. Those of a
        resumed run look at as many as before, or at all of them where it can afford that now.

        Args:
            spent: seconds that the others' first and last runs take, and what has been spent before.
            trainer: for the length of the training.
            pl_module: the module in training.
        """
        kept = {probe.name: probe.memory.most for probe in self.flexible}
        for probe in self.flexible:
            probe.memory.most = None
        readers = self.flexible or [one for one in self._probes if one.budget and one.needs == "logits"]
        if not readers or (sample := readers[0].sample) is None:
            return
        started = perf_counter()
        self.training = broadcast(training_seconds(trainer, pl_module, sample))
        self.seconds = perf_counter() - started
        if self.training is None or not self.flexible:
            return
        left = broadcast(self._allowance(PART) - spent - self.seconds)
        left -= self._measure(left * MEASURING, pl_module)
        share, late = affordable(self.costs, left)
        for probe in self.flexible:
            self._limit(probe, share, kept=kept[probe.name])
            if probe.name in late:
                probe.waits = True
                self.budget.expect(probe.name, self.costs[probe.name].seconds(share))

    def adjust(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int, *, last: bool) -> None:
        """Let probes look at more where training takes longer than it was estimated at.

        Args:
            trainer: for the length of the training.
            pl_module: the module in training.
            epoch: how many have been trained.
            last: whether the last runs are next, so that those that have waited can share what is left.
        """
        limited = [one for one in self.flexible if one.waits or one.memory.most is not None]
        if not limited or (estimated := self.training) is None:
            return
        training = broadcast(self._whole(trainer, epoch, last=last))
        longer = training is not None and training > LONGER * estimated
        if training is None or not (longer or last):
            return
        self.training = training
        left = broadcast(self._allowance(PART) - self._spent() - self._reserved(self.costs))
        most, before = {probe.name: probe.memory.most for probe in limited}, self._limits()
        if longer:
            left -= self._measure(left * MEASURING, pl_module)
        share = affordable_share(self.costs, left)
        for probe in limited:
            if longer or self.unseen(probe):
                self._limit(probe, share, at_least=None if self.unseen(probe) else most[probe.name])
                self.budget.expect(probe.name, self.next_seconds(probe))
        if not longer:
            return
        fit = sum(cost.seconds(share) for cost in self.costs.values()) <= left
        for probe in limited:
            probe.waits = probe.waits and not fit
        if self._limits() != before:
            now = at_fewer(self._probes)
            rank_zero_info(
                f"training takes about {training:.1f} s, longer than estimated ({estimated:.1f} s), so that "
                f"probes now run {now or 'on all their images and classes'}"
            )

    def runs_last(self, probe: Probe) -> bool:
        """Whether a probe has its last run: where it has run before, or there is time for it.

        It is kept as `left_out`.
        """
        if self.unseen(probe):
            left = self._allowance(LAST) - self._spent()
            probe.left_out = broadcast(self._needed(probe) > left)
        return not probe.left_out

    def runs_between(self, probe: Probe) -> bool:
        """Whether the budget allows one more run before the last, and time is left to those that wait."""
        allowed = self.budget.allows(probe.name, self._trained())
        return broadcast(
            allowed and (probe.name not in self.costs or self._spares(self.budget.cost(probe.name)))
        )

    def order(self, probe: Probe) -> float:
        """By which last runs are sorted: those that have run before, then the least expensive."""
        return self.next_seconds(probe) if self.unseen(probe) else -1.0

    def unseen(self, probe: Probe) -> bool:
        """Whether a probe waits for its first run, which may be the last."""
        return probe.name in self.costs and probe.waits and probe.memory.looks == 0

    def likely_out(self) -> list[Probe]:
        """Those whose only run will not fit, if training takes as long as it is estimated at."""
        waiting = sorted(filter(self.unseen, self.flexible), key=self.order)
        if not waiting:
            return []
        others = [one for one in self.flexible if one not in waiting]
        left = self._allowance(LAST) - self._spent() - self._reserved(self.costs)
        left -= sum(2 * self.next_seconds(one) for one in others if self.costs[one.name].measured)
        out = []
        for one in waiting:
            needed = self._needed(one)
            if needed > left:
                out.append(one)
            else:
                left -= needed
        return out

    def _spares(self, seconds: float) -> bool:
        waiting = sorted(self.next_seconds(one) for one in self.flexible if self.unseen(one))
        if not waiting:
            return True
        names = [one.name for one in self.flexible if self.unseen(one)]
        left = self._allowance(PART) - self._spent() - self._reserved(names)

        def fitting(left: float) -> int:
            return sum(sum(waiting[: place + 1]) <= left for place in range(len(waiting)))

        return waiting[-1] < inf and fitting(left - seconds) == fitting(left)

    def _needed(self, probe: Probe) -> float:
        """Seconds of its last run; of one that was not measured, those of the most expensive that was.

        Infinite of one whose measuring alone was too expensive.
        """
        if self.costs[probe.name].measured or probe.expensive:
            return self.next_seconds(probe)
        return max([cost.seconds(0.0) for cost in self.costs.values() if cost.measured], default=0.0)

    def next_seconds(self, probe: Probe) -> float:
        """Seconds of its next run."""
        cost, most = self.costs[probe.name], probe.memory.most
        return cost.seconds(1.0 if most is None else most / max(1, cost.count))

    def expect_last(self, probe: Probe) -> None:
        """Reserve the time of its last run, which may take longer than the first, as it was measured."""
        if (cost := self.costs.get(probe.name)) is not None and cost.measured:
            self.budget.expect(probe.name, max(self.budget.cost(probe.name), self.next_seconds(probe)))

    def _allowance(self, part: float) -> float:
        """Seconds: a part of the training time, or more if the budget is larger; at least its floor."""
        return max(self.budget.floor, max(part, self.budget.share) * (self.training or 0.0))

    def _spent(self) -> float:
        return self.seconds + sum(one.seconds for one in self._probes if one.budget is not None)

    def _trained(self) -> float:
        return perf_counter() - self._began - self.seconds - sum(one.seconds for one in self._probes)

    def _reserved(self, others: Collection[str]) -> float:
        """Seconds of the last runs of all but some."""
        return sum(self.budget.cost(one.name) for one in self._probes if one.name not in others)

    def _whole(self, trainer: pl.Trainer, epoch: int, *, last: bool) -> float | None:
        """Seconds of all of the training, by what it has taken so far; None if no step was trained."""
        step, epochs, steps = trainer.global_step, trainer.max_epochs or -1, trainer.max_steps
        here = step - self._first_step
        part = 1.0 if last else max(epoch / epochs, step / steps)  # below 0 without an end
        return self._trained() * step / here / part if here > 0 and part > 0 else None

    def _limits(self) -> list[tuple[str, bool]]:
        return [(one.limited_to, one.waits) for one in self._probes]

    def _measure(self, most: float, pl_module: pl.LightningModule) -> float:
        """Measure what is not known yet, as long as all of that seems to take less than `most` seconds.

        Those that can take fewer steps come later, as they take more, and the expensive ones last.
        """
        unknown = [
            one for one in self.flexible if one.name not in self.costs or self.costs[one.name].each == inf
        ]
        spent, done = 0.0, 0
        for probe in sorted(unknown, key=lambda one: (one.expensive, -one.least)):
            probe.look_at_most(None, 0)
            measured = spent * len(unknown) < most * max(1, done)
            self.costs[probe.name], seconds = broadcast(cost_of(probe, pl_module, measured=measured))
            spent, done = spent + seconds, done + measured
        return spent

    def _limit(
        self, probe: Probe, share: float, *, kept: float | None = None, at_least: float | None = None
    ) -> None:
        cost = self.costs[probe.name]
        number = max(cost.number(share), at_least or 0.0)
        # a resumed run looks at what it has looked at
        probe.look_at_most(None if number >= cost.count else kept or number, cost.count)


def affordable(costs: Mapping[str, Cost], left: float) -> tuple[float, Collection[str]]:
    """The share of its subjects that each probe looks at, before and after training, and who only after it.

    Args:
        costs: by the probe's name.
        left: seconds for both runs of all.
    """
    late = set[str]()

    def fewest() -> float:
        return sum(one.seconds(0.0) * (2 - (name in late)) for name, one in costs.items())

    while fewest() > left:
        early = {name: one.seconds(0.0) for name, one in costs.items() if name not in late and not one.always}
        if not early:
            break
        late.add(max(early, key=early.__getitem__))
    return affordable_share(costs, left, twice=costs.keys() - late), late


def affordable_share(costs: Mapping[str, Cost], left: float, *, twice: Collection[str] = ()) -> float:
    """The share of its subjects that each probe can look at, so that their runs take so many seconds in all.

    Args:
        costs: by the probe's name.
        left: seconds.
        twice: the probes of which two runs are to be afforded.
    """

    def seconds(share: float) -> float:
        return sum(one.seconds(share) * (1 + (name in twice)) for name, one in costs.items())

    few, many = 0.0, 1.0
    if seconds(many) <= left:
        return many
    for _ in range(20):  # to a millionth
        middle = (few + many) / 2
        few, many = (middle, many) if seconds(middle) <= left else (few, middle)
    return few
