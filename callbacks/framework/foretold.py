"""What probes will cost in a training, and what the budget will do, before it begins."""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

import lightning.pytorch as pl

from fulgurite.callbacks.framework.cost import cost_of
from fulgurite.callbacks.framework.look import Look
from fulgurite.callbacks.framework.observation import look, prepare
from fulgurite.callbacks.framework.probe import Probe
from fulgurite.callbacks.framework.short_run import ShortRun
from fulgurite.callbacks.framework.sources import Sources


class Foretold(Exception):  # noqa: N818
    """Ends a training that has not begun."""


class Foretell(pl.Callback):
    """Measures probes at the start of a training, as the training would, and ends it by `Foretold`.

    Nothing is logged or kept. Probes without a budget are not measured: each of their runs takes place.

    Args:
        probes: of the training; they are no callbacks of its Trainer.
    """

    def __init__(self, probes: Sequence[Probe]):
        self.probes, self.lines = probes, list[str]()
        self.training: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure; keep a line for each probe in `lines`, and the seconds of the `training`, if known."""
        sources = Sources()
        sources.max_images = (
            None
            if any(one.images is None for one in self.probes)
            else max(one.images or 1 for one in self.probes)
        )
        for one in self.probes:
            started = perf_counter()
            one.begin()
            prepare(one, sources, trainer, pl_module)
            one.seconds = perf_counter() - started
        limits = [one.budget for one in self.probes if one.budget is not None]
        short = ShortRun(replace(limits[0]), self.probes, self.probes, 0) if limits else None
        if short is not None:
            self._measure(short, trainer, pl_module)
        self.lines = [_line(one, short) for one in self.probes]
        if free := [one.name for one in self.probes if one.budget is None]:
            which = "them" if len(free) == len(self.probes) else ", ".join(free)
            self.lines.append(f"no budget limits {which}, so their cost is not measured here")
        raise Foretold

    def _measure(self, short: ShortRun, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        prepared = sum(one.seconds for one in self.probes if one.budget is not None)
        for one in self.probes:
            if one in short.flexible or one.budget is None:
                continue
            started, one.look = perf_counter(), Look(0, 0, "start", 0, first=True, last=False)
            look(one, [], trainer, pl_module)
            seconds = perf_counter() - started
            one.seconds += seconds
            short.budget.charge(one.name, seconds)
        spent = sum(one.seconds for one in self.probes if one.budget is not None)
        short.begin(2 * spent - prepared, trainer, pl_module)
        self.training = short.training
        for one in short.flexible:  # what a training has no time to measure
            if (known := short.costs.get(one.name)) is None or not known.measured:
                most = one.memory.most
                one.look_at_most(None, 0)
                short.costs[one.name], _ = cost_of(one, pl_module, measured=True)
                one.look_at_most(most, short.costs[one.name].count)


def _line(probe: Probe, short: ShortRun | None) -> str:
    """When a probe runs, on what, how long, and what the budget does."""
    often = "every epoch" if probe.every == 1 else f"every {probe.every} epochs"
    images = f", {'all' if probe.images is None else f'up to {probe.images}'} images"
    images = "" if probe.needs == "weights" else images
    if short is None or probe.budget is None:
        return f"{probe.name}: before training and {often}{images}"
    when = "only after training" if short.unseen(probe) else f"before training and {often}"
    limit = f", within {probe.budget.share:.0%} of the training time in all"
    return f"{probe.name}: {when}{images}{limit}; {_cost(probe, short)}"


def _cost(probe: Probe, short: ShortRun) -> str:
    if (cost := short.costs.get(probe.name)) is None:
        return f"a run takes about {short.budget.cost(probe.name):.2g} s"
    fewer = f"as the training is short, on {probe.limited_to}" if probe.limited_to else ""
    fewer += f" ({cost.seconds(1.0):.2g} s on all)" if fewer else ""
    words = [f"a run takes about {short.next_seconds(probe):.2g} s", *([fewer] if fewer else [])]
    if probe in short.likely_out():
        words.append("probably left out, unless the training takes longer than estimated")
    return "; ".join(words)
