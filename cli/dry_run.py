"""The output of `fit --dry-run`: data, network, parameter groups, probes and cost; nothing is trained."""

from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch

from fulgurite.callbacks.framework.foretold import Foretell, Foretold
from fulgurite.cli.layer_table import summary
from fulgurite.cli.trainer_options import make_trainer
from fulgurite.data.image_data_module import ImageData
from fulgurite.models.classifier import Classifier
from fulgurite.probes.counted import counted
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.recipes.analysis import Analysis
from fulgurite.recipes.recipe import Recipe

PASSES = 3
"""The time of a training step, in forward passes."""


def described(recipe: Recipe | Analysis, options: Mapping[str, Any] | None = None) -> str:
    """The parts of a training, each with a head.

    Args:
        recipe: what would be trained.
        options: of the Trainer.
    """
    if isinstance(recipe, Analysis):
        return f"{recipe.name}: nothing is trained, so there is nothing to show before it runs"
    recipe.data.prepare_data()
    recipe.data.setup("fit")
    probes, seconds = _probes(recipe, options or {})
    parts = {
        "data": _data(recipe),
        "network": [summary(recipe)],
        "parameter groups": _groups(recipe),
        "probes": probes,
        "cost": _cost(recipe, seconds),
    }
    return "\n\n".join(
        "\n".join([f"{head}:", *(f"  {line}" for line in _lines(own))]) for head, own in parts.items()
    )


def _lines(parts: list[str]) -> list[str]:
    return [line for part in parts for line in part.split("\n")]


def _data(recipe: Recipe) -> list[str]:
    data = recipe.data
    lines = [
        f"{type(data).__name__}, {counted(len(data.train_dataloader()), 'batch')} of training images an epoch"
    ]
    if isinstance(data, ImageData):
        tested = "the validation images" if data.tested_on == "validation" else f"{len(data.test)}"
        lines.append(
            f"images: {len(data.train)} to train on, {len(data.val)} to validate, to test {tested}; "
            f"{data.channels} x {data.size} x {data.size} pixels, {data.batch_size} in a batch"
        )
        names = ", ".join(data.classes[:10]) + ", ..." * (len(data.classes) > 10)
        lines.append(f"classes: {len(data.classes)} ({names})")
    return lines


def _groups(recipe: Recipe) -> list[str]:
    if not isinstance(recipe.model, Classifier):
        return [f"those of {type(recipe.model).__name__}.configure_optimizers"]
    return [
        _group(number, group, recipe.model) for number, group in enumerate(recipe.model.parameter_groups())
    ]


def _group(number: int, group: dict[str, Any], model: Classifier) -> str:
    count = sum(own.numel() for own in group["params"])
    name = group.get("name") or ("weights", "biases and normalisation")[number]
    rate = "frozen at first" if group.get("frozen") else f"learning rate {group.get('lr', model.lr):g}"
    decay = group.get("weight_decay", model.weight_decay)
    return f"{name}: {count:,} parameters, {rate}, weight decay {decay:g}"


def _probes(recipe: Recipe, options: Mapping[str, Any]) -> tuple[list[str], float | None]:
    """A line for each, measured at the start of a training that then ends; and that one's seconds."""
    if not recipe.probes:
        return ["none"], None
    foretell = Foretell(recipe.probes)
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None, "barebones": False}
    own = {"max_epochs": recipe.epochs, **options, **alone, **silent}
    trainer = make_trainer(
        **{**own, "enable_model_summary": False, "num_sanity_val_steps": 0}, callbacks=[foretell]
    )
    with suppress(Foretold):
        trainer.fit(recipe.model, recipe.data)
    return foretell.lines or ["nothing to train on, so none runs"], foretell.training


def _cost(recipe: Recipe, training: float | None) -> list[str]:
    batch = next(iter(recipe.data.train_dataloader()))
    images = batch[0] if isinstance(batch, list | tuple) else next(iter(batch.values()))
    with frozen_eval(recipe.network) as network, torch.no_grad():
        network(images[:1])
        started = perf_counter()
        network(images)
        seconds = perf_counter() - started
    if training is None:
        training = PASSES * seconds * len(recipe.data.train_dataloader()) * recipe.epochs
    return [
        f"a forward pass of {counted(len(images), 'image')} on the CPU takes {seconds:.2g} s; the "
        f"{counted(recipe.epochs, 'epoch')} take about {training:.1f} s by passes of the network, without "
        "probes, loading, and whatever else a training step does"
    ]
