"""Shared parts of fine-tuning recipes: a strategy by name, and probes of transfer."""

import math
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from fulgurite.callbacks.transfer import Drift, StageProbes
from fulgurite.data.image_data_module import ImageData
from fulgurite.models.classifier import Classifier
from fulgurite.models.finetuning import Schedule
from fulgurite.models.losses import Loss, Plain
from fulgurite.models.networks import check_takes
from fulgurite.models.stages import stages_of
from fulgurite.models.strategies import Strategy, schedule_of
from fulgurite.models.weighted_loss import Weighted
from fulgurite.recipes.recipe import Recipe, standard_probes


def transfer(
    network: nn.Module,
    data: ImageData,
    layer: str = "",
    precise: bool = False,
    composite: str | None = None,
    *,
    strategy: Strategy = "linear",
    stages: int = 1,
    decay: float = 0.4,
    every_stage: int = 1,
    class_weights: bool = False,
    smoothing: float = 0.0,
    epochs: int,
    patience: int | None = None,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    lr: float,
    weight_decay: float = 0.01,
    every: int = 1,
    budget: float | None = None,
    seed: int = 0,
) -> Recipe:
    """Train a network by a strategy, see `schedule_of`; an interrupted run that is resumed ends the same.

    Args:
        network: the network to fine-tune; its head is fresh.
        data: the images to fine-tune on.
        layer: where probes read class scores.
        precise: compute class images in float64.
        strategy: linear (only the head), last (the head and some stages before it), layerwise (all, the
            deeper the faster), gradual (so too, unfrozen one by one), full (all at one rate), scratch (fresh
            weights).
        stages: how many before the head learn, in last.
        decay: the learning rate of a stage over that of the next, in layerwise and gradual.
        every_stage: epochs from one unfreezing to the next, in gradual.
        class_weights: rare classes count as much as frequent ones.
        smoothing: the share of each label that is spread evenly over all classes.
        epochs: passes over the training images.
        patience: epochs without a better validation accuracy after which training stops.
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: the highest learning rate, that of the head; a tenth of it for full.
        weight_decay: of the weights.
        every: epochs from one run of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take; no limit without it.
        seed: of weights, order, augmentation and split.
    """
    check_takes(network, data.channels, data.size)
    shape = (data.channels, data.size, data.size)
    schedule = schedule_of(strategy, network, stages=stages, decay=decay, every=every_stage, shape=shape)
    names = [stage.name for stage in stages_of(network, shape=shape)]
    rank_zero_info(f"{strategy}: {_summary(schedule, names, epochs)}")
    model = Classifier(
        network,
        classes=len(data.classes),
        loss=_loss(data, class_weights=class_weights, smoothing=smoothing),
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        table=schedule,
        seed=seed,
    )
    probes = standard_probes(every=every, budget=budget, layer=layer, precise=precise, composite=composite)
    if probes:
        shared: dict[str, Any] = {"every": every, "budget": probes[0].budget, "composite": composite}
        probes += [Drift(**shared), StageProbes(**shared)]
    return Recipe(model, data, epochs, probes, patience=patience)


def check_knobs(
    *,
    decay: float,
    every_stage: int,
    epochs: int,
    lr: float,
    weight_decay: float,
    smoothing: float,
    patience: int | None,
) -> None:
    """Check these numbers before weights are downloaded or trained; see `transfer`.

    Raises:
        ValueError: one of them is out of range.
    """
    wanted = {
        "decay": (decay, 0 < decay <= 1, "a share of the next stage's rate, above 0 and up to 1"),
        "every_stage": (every_stage, every_stage >= 1, "at least 1 epoch from one unfreezing to the next"),
        "epochs": (epochs, epochs >= 1, "at least 1"),
        "lr": (lr, 0 < lr < math.inf, "a learning rate above 0"),
        "weight_decay": (weight_decay, 0 <= weight_decay < math.inf, "0 or more"),
        "smoothing": (smoothing, 0 <= smoothing < 1, "a share of each label, from 0 to below 1"),
        "patience": (patience, patience is None or patience >= 1, "at least 1 epoch, or none"),
    }
    for name, (value, possible, words) in wanted.items():
        if not possible:
            raise ValueError(f"{name}={value}; wanted {words}")


def seeded(seed: int) -> None:
    """Seed random draws, whatever was drawn before."""
    pl.seed_everything(seed, workers=True, verbose=False)


def _loss(data: ImageData, *, class_weights: bool, smoothing: float) -> Loss:
    return Weighted(data.class_weights.tolist(), smoothing) if class_weights else Plain(smoothing)


def _summary(schedule: Schedule, names: list[str], epochs: int) -> str:
    """The factors of the learning rate by pattern, or a schedule of them."""
    begins = [
        next((epoch for epoch, table in schedule if [*table.values()][place] is not None), None)
        for place in range(len(names))
    ]
    factors = [*schedule[-1][1].values()]
    words = []
    for name, begin, factor in zip(names, begins, factors, strict=True):
        if begin is None or begin >= epochs:
            words.append(f"{name} frozen")
        else:
            words.append(f"{name} x {factor:.3g}" + (f" from epoch {begin}" if begin else ""))
    return ", ".join(words)
