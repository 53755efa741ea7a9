"""The cost of looks, measured before training, and the number of subjects that a short run can afford."""

from collections.abc import Collection, Mapping, Sequence, Sized
from dataclasses import dataclass
from math import inf
from time import perf_counter

import lightning.pytorch as pl
import torch
from torch import nn

from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.observation import network_of, prepared_network
from fulgurite.callbacks.framework.probe import Probe
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.composites import shown_as
from fulgurite.probes.distributed import broadcast
from fulgurite.probes.frozen_eval import frozen_eval

PASSES = 3
"""Forward passes that a step of training takes as long as: the backward pass is about two."""
PART = 0.4
"""Of the training time, for the first and the last look of all probes: with a fifth more for what is not
measured, such as writing pictures, a third of a run is looks."""
TRIED = 1 / 16  # of the steps of a subject, by which their time is measured
IMAGES, FEWEST, FEW = 16, 16, 4  # of a pass; of a probe that looks at fewer images; of its first measurement


@dataclass(frozen=True)
class Cost:
    """What a look takes.

    Args:
        each: seconds for the steps of each subject, or for each image.
        count: how many there are.
        least: how many it looks at, at least; a part of one is one by fewer steps.
        fixed: seconds besides.
        first: seconds for each subject besides its steps.
        always: it looks before training in any case.
    """

    each: float
    count: int
    least: float
    fixed: float = 0.0
    first: float = 0.0
    always: bool = False

    def number(self, share: float) -> float:
        """At how many it looks: a share of what there is."""
        wanted = max(self.least, share * self.count)
        return int(wanted) if wanted >= 1 else wanted

    def seconds(self, share: float) -> float:
        """What a look at a share of what there is takes."""
        number = self.number(share)
        return self.fixed + self.first * max(1.0, number) + self.each * number


def afford(
    probes: Sequence[Probe],
    budget: Budget,
    spent: float,
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
) -> None:
    """Let probes look at fewer subjects or images where a short run cannot afford all of them.

    Each looks at a few first, without keeping anything, to measure the cost. Those of which not even the
    fewest can be afforded twice look only after training. Those of a resumed run look at as many as before,
    or at all of them where it can afford that now.

    Args:
        probes: those that can look at fewer.
        budget: of all probes; its floor is free.
        spent: seconds that the others' first and last looks take, and what has been spent before.
        trainer: for the length of the training.
        pl_module: the module in training.
    """
    kept = {probe.name: probe.memory.most for probe in probes}
    for probe in probes:
        probe.memory.most = None
    if not probes or (sample := probes[0].sample) is None:
        return
    seconds = broadcast(training_seconds(trainer, pl_module, sample))
    if seconds is None:
        return
    left, costs = broadcast(max(budget.floor, PART * seconds) - spent), dict[str, Cost]()
    for probe in probes:
        # when there is no time left, measuring takes none either
        known = sum(cost.seconds(0.0) for cost in costs.values()) <= left
        costs[probe.name], measuring = broadcast(_cost(probe, pl_module, measured=known))
        left -= measuring
    share, late = affordable(costs, left)
    for probe in probes:
        cost = costs[probe.name]
        number = cost.number(share)
        if number < cost.count:
            number = kept[probe.name] or number  # a resumed run looks at what it has looked at
            probe.memory.most = number
            steps = "" if number >= 1 else f" by {number:.0%} of the usual steps"
            probe.limited_to = f"{max(1, int(number))} of {cost.count} {probe.subject_name}{steps}"
        if probe.name in late:
            probe.waits = True
            budget.expect(probe.name, cost.seconds(share))
        probe.shorten_sample()


def affordable(costs: Mapping[str, Cost], left: float) -> tuple[float, Collection[str]]:
    """The share of its subjects that each probe looks at, before and after training, and who only after it.

    Args:
        costs: by the probe's name.
        left: seconds for both looks of all.
    """
    late = set[str]()

    def seconds(share: float) -> float:
        return sum(one.seconds(share) * (2 - (name in late)) for name, one in costs.items())

    while seconds(0.0) > left:
        early = {name: one.seconds(0.0) for name, one in costs.items() if name not in late and not one.always}
        if not early:
            break
        late.add(max(early, key=early.__getitem__))
    few, many = 0.0, 1.0
    if seconds(many) <= left:
        return many, late
    for _ in range(20):  # to a millionth
        middle = (few + many) / 2
        few, many = (middle, many) if seconds(middle) <= left else (few, middle)
    return few, late


def cost_in_words(probes: Sequence[Probe], budget: Budget | None) -> str:
    """What the probes have taken before training, what limits them, and what a short run leaves out."""
    spent = {one.name: one.seconds for one in probes}
    late = [one.name for one in probes if one.waits]
    words = [
        f"probes: {len(probes)}, which took {sum(spent.values()):.1f} s before training, with loading "
        f"and measuring ({listed(spent)})"
    ]
    if budget is None:
        words.append("no budget limits them")
    else:
        free = [one.name for one in probes if one.budget is None]
        others = f" without {', '.join(free)}, which have no budget," if free else ""
        words.append(
            f"in all{others} they may take {100 * budget.share:.3g}% of the training time, besides the looks "
            "before training and after the last epoch"
        )
    short = [f"only after training: {', '.join(late)}"] if late else []
    short += [fewer] if (fewer := at_fewer(probes)) else []
    if short:
        words.append(f"as the run is short, {'; '.join(short)}")
    return "; ".join(words)


def at_fewer(probes: Sequence[Probe]) -> str:
    """Which probes look at fewer than they could, and at how many of how many; nothing where none does."""
    limited = [f"{one.name} {one.limited_to}" for one in probes if one.limited_to]
    return f"at fewer: {', '.join(limited)}" if limited else ""


def listed(seconds: Mapping[str, float]) -> str:
    """The longest first, as far as they count."""
    longest = sorted(seconds.items(), key=lambda item: -item[1])
    counts = [item for item in longest if item[1] > sum(seconds.values()) / 50] or longest[:1]
    return ", ".join(f"{name} {spent:.1f} s" for name, spent in counts)


def training_seconds(trainer: pl.Trainer, pl_module: pl.LightningModule, sample: Sample) -> float | None:
    """About how long training will take at least, by a forward pass; None if its end is not known."""
    size = _batch_size(trainer.train_dataloader)
    epochs, total = trainer.max_epochs, float("inf")
    if epochs is not None and epochs > 0:
        total = trainer.num_training_batches * epochs
    if trainer.max_steps > 0:
        total = min(total, trainer.max_steps * trainer.accumulate_grad_batches)
    if size is None or total == float("inf"):
        return None
    batch = _batch_size(trainer.val_dataloaders)
    validated = 0.0 if batch is None else batch * sum(trainer.num_val_batches)
    images = sample[:IMAGES].images
    with frozen_eval(network_of(pl_module)) as network, torch.no_grad():
        network(images)
        _wait(images)
        started = perf_counter()
        network(images)
        _wait(images)
    each = (perf_counter() - started) / len(images)
    return each * (PASSES * size * total + validated * total / trainer.num_training_batches)


def _batch_size(loader: object) -> float | None:
    """The images of a batch; their average, where a sampler makes batches of its own."""
    size = getattr(loader, "batch_size", None)
    if isinstance(size, int):
        return size
    dataset = getattr(loader, "dataset", None)
    if isinstance(loader, Sized) and isinstance(dataset, Sized) and len(loader):
        return len(dataset) / len(loader)
    return None


def _cost(probe: Probe, pl_module: pl.LightningModule, *, measured: bool) -> tuple[Cost, float]:
    """What a look of a probe takes, by its first subject or by a few images; and how long measuring took.

    Infinite where it is not measured; nothing where the look fails.
    """
    sample, begun, cost = probe.sample, perf_counter(), Cost(0.0, 0, 0)
    assert sample is not None
    try:
        with prepared_network(probe, network_of(pl_module)) as network, shown_as(probe.composite):
            if probe.reference is not None:
                probe.reference.begin(network)
            measure = _by_images if probe.fewer == "images" else _by_subjects
            cost = measure(probe, network, sample, measured=measured)
    except Exception:  # its first look will fail as well, and is reported
        pass
    probe.memory.take_new()
    seconds = perf_counter() - begun
    probe.seconds += seconds
    return cost, seconds


def _by_subjects(probe: Probe, network: nn.Module, sample: Sample, *, measured: bool) -> Cost:
    subjects = probe.subjects(network, sample)
    if not subjects:
        return Cost(0.0, 0, 0)
    always = probe.reference is not None
    if not measured:
        return Cost(inf, len(subjects), probe.least, always=always)
    if probe.least == 1:
        each = probe.seconds_for(network, sample, subjects[:1])
        return Cost(each, len(subjects), 1, always=always)
    _, few, more = (_by_a_part(probe, network, sample, subjects[:1], part) for part in (0.0, 0.0, TRIED))
    each = max(0.0, more - few) / TRIED
    return Cost(each, len(subjects), probe.least, first=few, always=always)


def _by_a_part(
    probe: Probe, network: nn.Module, sample: Sample, subjects: Sequence[str], part: float
) -> float:
    try:
        probe.tried = part
        return probe.seconds_for(network, sample, subjects)
    finally:
        probe.tried = 1.0


def _by_images(probe: Probe, network: nn.Module, sample: Sample, *, measured: bool) -> Cost:
    samples, always = (probe.sample, probe.training_sample), probe.reference is not None

    def seconds(count: int) -> float:
        try:
            probe.sample, probe.training_sample = probe.fewer_images(count)
            assert probe.sample is not None
            return probe.seconds_for(network, probe.sample, probe.subjects(network, probe.sample))
        finally:
            probe.sample, probe.training_sample = samples

    if not measured:
        return Cost(inf, len(sample), min(len(sample), FEWEST), always=always)
    if len(sample) <= FEWEST:
        return Cost(0.0, len(sample), len(sample), fixed=seconds(len(sample)), always=always)
    seconds(FEW)  # what is done once only
    few, more = seconds(FEW), seconds(FEWEST)
    each = max(0.0, more - few) / (FEWEST - FEW)
    return Cost(each, len(sample), FEWEST, fixed=few - FEW * each, always=always)


def _wait(images: torch.Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
