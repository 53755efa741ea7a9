"""The cost of looks, measured before training, and the number of subjects that a short run can afford."""

from collections.abc import Sequence
from time import perf_counter

import lightning.pytorch as pl
import torch

from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.observation import network_of, prepared_network
from fulgurite.callbacks.framework.probe import Probe
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.composites import shown_as
from fulgurite.probes.distributed import broadcast
from fulgurite.probes.frozen_eval import frozen_eval

PASSES = 3
"""Forward passes that a step of training takes as long as: the backward pass is about two."""
PART = 0.25
"""Of the training time, for a look of all probes: with the first and the last, a third of a run is looks."""
IMAGES = 16


def afford(
    probes: Sequence[Probe],
    budget: Budget,
    spent: float,
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
) -> dict[str, str]:
    """Let probes look at fewer subjects where a short run cannot afford all of them.

    Each looks at its first subject, without keeping anything, to measure the cost.

    Args:
        probes: those that can look at fewer subjects.
        budget: of all probes; its floor is free.
        spent: seconds that the first looks of the others have taken.
        trainer: for the length of the training.
        pl_module: the module in training.

    Returns:
        For each probe that looks at fewer, at how many of how many; the same on every process.
    """
    if not probes or (sample := probes[0].sample) is None:
        return {}
    seconds = broadcast(training_seconds(trainer, pl_module, sample))
    if seconds is None:
        return {}
    left = broadcast(max(0.0, budget.floor / 2 + PART * seconds - spent))
    costs = broadcast({probe.name: _cost(probe, pl_module) for probe in probes})
    whole = sum(each * count for each, count in costs.values())
    if whole <= left:
        return {}
    counts = {probe.name: costs[probe.name][1] for probe in probes}
    for probe in probes:
        probe.memory.most = max(1, int(counts[probe.name] * left / whole))
    return {
        probe.name: f"{probe.memory.most} of {count}"
        for probe in probes
        if (count := counts[probe.name]) > (probe.memory.most or 0)
    }


def training_seconds(trainer: pl.Trainer, pl_module: pl.LightningModule, sample: Sample) -> float | None:
    """About how long training will take at least, by a forward pass; None if its end is not known."""
    size = getattr(trainer.train_dataloader, "batch_size", None)
    epochs, total = trainer.max_epochs, float("inf")
    if epochs is not None and epochs > 0:
        total = trainer.num_training_batches * epochs
    if trainer.max_steps > 0:
        total = min(total, trainer.max_steps * trainer.accumulate_grad_batches)
    if not isinstance(size, int) or total == float("inf"):
        return None
    images = sample[:IMAGES].images
    with frozen_eval(network_of(pl_module)) as network, torch.no_grad():
        network(images)
        _wait(images)
        started = perf_counter()
        network(images)
        _wait(images)
    return PASSES * (perf_counter() - started) / len(images) * size * total


def _cost(probe: Probe, pl_module: pl.LightningModule) -> tuple[float, int]:
    """How long a look of a probe at its first subject takes, and how many subjects there are."""
    sample, begun, count, seconds = probe.sample, perf_counter(), 0, 0.0
    assert sample is not None
    try:
        with prepared_network(probe, network_of(pl_module)) as network, shown_as(probe.composite):
            subjects = probe.subjects(network, sample)
            count = len(subjects)
            if count > 1:
                started = perf_counter()
                probe.observe(network, sample, subjects[:1])
                seconds = perf_counter() - started
    except Exception:  # its first look will fail as well, and is reported
        count = 0
    probe.memory.take_new()
    probe.seconds += perf_counter() - begun
    return seconds, count


def _wait(images: torch.Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
