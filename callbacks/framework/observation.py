"""Preparation of a probe, and one look of it on all processes together."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from fulgurite.callbacks.boards.board import Board, log_all
from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.framework.artifacts import Picture, Scalar
from fulgurite.callbacks.framework.captions import row_names
from fulgurite.callbacks.framework.contract import named
from fulgurite.callbacks.framework.distributed import merge_in_order, shard
from fulgurite.callbacks.framework.exchange import Failure, exchange, packed
from fulgurite.callbacks.framework.probe import Probe
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.sources import Sources
from fulgurite.callbacks.framework.tasks import Wanted, read_alike, stated_task
from fulgurite.probes.composites import composed, composites_noted, shown_as
from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.render import noted, titled
from fulgurite.probes.style import drawn_in
from fulgurite.probes.tasks import answers


def network_of(pl_module: pl.LightningModule) -> nn.Module:
    """The network to probe: the part that a module names by `network_to_probe`, or the module itself."""
    return getattr(pl_module, "network_to_probe", pl_module)


def prepare(probe: Probe, sources: Sources, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Fetch a probe's samples, and check its configuration.

    Raises:
        ValueError: it cannot be.
    """
    probe.sample = probe.training_sample = None
    how = {"device": device_of(pl_module), "mean": probe.mean, "std": probe.std}
    if probe.training_images:
        probe.training_sample = sources.training(trainer, probe.training_images, **how)
    sample = sources.validation(trainer, probe.images, classes=probe.classes, **how)
    task = probe.task or stated_task(pl_module)
    wanted = Wanted(probe.tasks, task, probe.label, probe.name, probe.classes)
    with frozen_eval(network_of(pl_module), mean=probe.mean, std=probe.std) as network:
        probe.sample, probe.logits_of = named(sample, network, probe.needs, wanted, reported=sources.reported)
        sample = probe.sample
        if probe.training_sample is not None:
            probe.training_sample = read_alike(probe.training_sample, sample, probe.logits_of)
    with prepared_network(probe, network_of(pl_module)) as network, shown_as(probe.composite):
        if probe.needs != "weights":
            composed(sample[:1].images)  # raises where the images lack a channel of the composite
        if probe.reference is not None and probe.reference.what != "start":
            probe.reference.begin(network)
        probe.check(network, sample)


def look(
    probe: Probe, boards: Sequence[Board], trainer: pl.Trainer, pl_module: pl.LightningModule
) -> Failure | None:
    """Look once: each process at its share; the first process composes what is logged. Returns the error."""
    started, when, network, sample = perf_counter(), probe.look, network_of(pl_module), probe.sample
    assert sample is not None  # a probe without a sample never looks

    def observe() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        probe.note(trainer, pl_module)
        with prepared_network(probe, network) as own:
            if probe.reference is not None and when.label:
                probe.reference.begin(own)
            mine = shard(probe.chosen(own, sample))
            observed = dict(probe.observe(own, sample, mine)) if mine else {}
        return observed, probe.memory.take_new()

    def conclude(everyones: Sequence[bytes]) -> bytes:
        # these bytes come from our own processes
        observed, remembered = zip(*(pickle.loads(mine) for mine in everyones), strict=True)
        composed, frames = _composed(probe, network, sample, observed)
        if when.label:
            probe.film.add(when.label, frames, *noted_lines)
        logged = {
            _tag(probe, sample, key, item): _titled(probe, key, item, *noted_lines)
            for key, item in composed.items()
        }
        log_all(boards, logged, when.step)
        if not when.label:  # of a finished network, the film is in the checkpoint
            log_film(probe, [board for board in boards if isinstance(board, LatestPictures)], when.step)
        log_all(boards, {f"seconds/{probe.name}": Scalar(perf_counter() - started)}, when.step)
        return packed(
            {
                subject: value
                for own in (*remembered, probe.memory.take_new())
                for subject, value in own.items()
            }
        )

    with shown_as(probe.composite), drawn_in(probe.theme), composites_noted() as noted_lines:
        failure, remembered = exchange(observe, conclude)
    probe.memory.take_new()  # what a failed look was about to keep
    if failure is None:
        probe.memory.adopt(pickle.loads(remembered))
    return failure


def log_film(probe: Probe, boards: Sequence[Board], step: int) -> None:
    """Log the strip of a probe's film, if there is one."""
    with drawn_in(probe.theme):
        called = row_names(probe.sample) if boards and probe.sample is not None else {}
        strip = probe.film.strip(probe.name, called) if boards else None
        if strip is not None:
            log_all(boards, {probe.tag("film"): strip}, step)


def _tag(probe: Probe, sample: Sample, key: str, item: object) -> str:
    """The tag: a figure of images other than validation images names them."""
    if isinstance(item, Scalar) and probe.needs == "logits" and sample.part != "validation":
        return f"{probe.name} of {sample.part} images/{key}"
    return probe.tag(key)


def _titled(probe: Probe, key: str, item: Any, *notes: str) -> Any:
    """A picture under its title and above the notes; all else as it is."""
    if not isinstance(item, Picture):
        return item
    return Picture(titled(noted(item.pixels, *notes), probe.title(key)))


def _composed(
    probe: Probe, network: nn.Module, sample: Sample, everyones: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The artifacts to log, and those for the film."""
    with prepared_network(probe, network) as own:
        observed = merge_in_order(everyones, probe.chosen(own, sample))
        composed = probe.compose(observed, sample)
        return composed, probe.frames(observed, composed)


@contextmanager
def prepared_network(probe: Probe, network: nn.Module) -> Iterator[nn.Module]:
    """The network as a probe sees it, within the block."""
    with frozen_eval(network, mean=probe.mean, std=probe.std) as own:
        torch.manual_seed(probe.seed)
        with answers(own, probe.logits_of):
            yield own
