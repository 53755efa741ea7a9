"""Command: which of many networks suits your images, ranked without training, and the best measured."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.cli.folds import FoldedImages
from fulgurite.models.strategies import Strategy
from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.representation.logistic import logistic
from fulgurite.probes.representation.stages import Features, features, stages
from fulgurite.probes.representation.transferability import h_score, log_me
from fulgurite.recipes import finetune
from fulgurite.recipes import run as runs
from fulgurite.recipes.advice import estimate
from fulgurite.recipes.backbones import SMALL, Backbone, Ranking, ranked
from fulgurite.recipes.quick_fit import quick_fit, quiet

FILE, PLOT = "networks.json", "networks.png"
PRESETS = {"small": SMALL}


def rank_networks(
    *,
    path: str,
    networks: str = "small",
    size: int = 128,
    measured: int = 3,
    strategy: Strategy | None = None,
    folds: int = 3,
    epochs: int = 5,
    lr: float = 1e-4,
    batch_size: int = 32,
    workers: int = 0,
    seed: int = 0,
    save: Callable[[Ranking], None] | None = None,
) -> Ranking:
    """Rank networks for a folder of images by H-Score and LogME, and measure the best.

    Each network reads each image once; its scores then take less than a second and no training. The best by
    both are measured: by a logistic classifier of the same features, fitted to all folds but one, or with
    --strategy by fine-tuning on them from a fitted head. Weighted tau measures how well the ranking agrees.

    Args:
        path: the folder, `path/CLASS/*.jpg`, or `path/train/CLASS/*.jpg` and `path/val/...`.
        networks: names with commas: torchvision/NAME, timm/NAME, NAME=FILE for weights of your own, or the
            folder of a run; or small, for ten small ones of torchvision.
        size: side of the square that images are cropped to.
        measured: how many are measured.
        strategy: of fine-tuning, instead of a logistic classifier: linear, last, layerwise, gradual, full.
        folds: how often each is measured, 2 or more.
        epochs: of each fine-tuning.
        lr: the highest learning rate of each fine-tuning.
        batch_size: images in a step of fine-tuning.
        workers: processes that load images.
        seed: of folds, weights, order and augmentation.
        save: is called with the results so far, whenever a network was scored or measured.

    Raises:
        ValueError: no network that can be scored, or images that cannot be split.
    """
    names = list(PRESETS.get(networks.strip(), [part.strip() for part in networks.split(",")]))
    if not all(names) or len({*names}) < len(names):
        raise ValueError(f"--networks {networks}; wanted different names with commas between them, or small")
    if measured < 0 or epochs < 1:
        raise ValueError(f"measured={measured}, epochs={epochs}; wanted 0 or more, and 1 epoch or more")
    if strategy == "scratch":
        raise ValueError('strategy="scratch" uses no weights of a network; wanted another')
    images = FoldedImages(path, folds, size=size, workers=workers, seed=seed)
    knobs = {"path": path, "size": size, "workers": workers, "seed": seed, "batch_size": batch_size}

    what = f"fine-tuning ({strategy})" if strategy else "logistic classifier of the last stage"
    known, kept = dict[str, Backbone](), dict[str, Features]()

    def so_far() -> Ranking:
        found = Ranking(ranked([*known.values()]), len(images), len(images.classes), folds, what)
        if save is not None:
            save(found)
        return found

    for name in names:
        known[name], values = _scored(name, knobs, images)
        if values is not None:
            kept[name] = values
        so_far()
    if not kept:
        raise ValueError(f"no network could be scored; {names[0]}: {known[names[0]].why}")
    for one in so_far().backbones[: min(measured, len(kept))]:
        started = perf_counter()
        if strategy is None:
            right = _fitted(kept[one.name], images)
        else:
            tuning = {**knobs, "strategy": strategy, "lr": lr, "epochs": epochs}
            right = _tuned(one.name, tuning, images)
        shares = [float(right[rows].double().mean()) for rows in images.fold_rows]
        accuracy = estimate(shares, images=len(images))
        seconds = {**one.seconds, "measurement": perf_counter() - started}
        known[one.name] = replace(one, accuracy=accuracy, right=right, seconds=seconds)
        so_far()
    return so_far()


def saved_in(folder: Path) -> Callable[[Ranking], None]:
    """Writes the results so far: the numbers, and a plot of the measured accuracies."""

    def save(found: Ranking) -> None:
        write_atomic(folder / FILE, json.dumps(found.as_dict(), indent=2) + "\n")
        if found.best() is not None:
            LatestPictures(folder).log({PLOT.removesuffix(".png"): Picture(found.picture())}, 0)

    return save


def _source(name: str) -> dict[str, str]:
    """The knobs of `finetune` for a network as typed."""
    network, equals, file = name.partition("=")
    if equals:
        return {"network": network, "weights": file}
    return {"backbone": name} if (Path(name) / runs.FILE).is_file() else {"network": name}


def _scored(name: str, knobs: dict[str, Any], images: FoldedImages) -> tuple[Backbone, Features | None]:
    """The scores and the features; the reason for a network that cannot be loaded."""
    started = perf_counter()
    try:
        with quiet():
            network = finetune.recipe(**_source(name), **knobs, strategy="linear", every=0).network
        values = _last_stage(network, images, name)
    except (ValueError, OSError) as error:  # the others may still load
        return Backbone(name, why=" ".join(str(error).split())), None
    seconds, scores = {"features": perf_counter() - started}, {}
    (codes,) = values.of.values()
    for kind, score in {"H-Score": h_score, "LogME": log_me}.items():
        started = perf_counter()
        try:
            scores[kind] = score(codes, values.labels)
        except ValueError as error:
            return Backbone(name, why=str(error)), None
        seconds[kind] = perf_counter() - started
    return Backbone(name, codes.shape[1], scores, seconds), values


def _last_stage(network: nn.Module, images: FoldedImages, name: str) -> Features:
    example, _ = images.loader.dataset[0]
    *_, layer = stages(network, example[None])
    return features(network, images.loader, [layer], progress=name)


def _fitted(values: Features, images: FoldedImages) -> Bool[Tensor, "n"]:
    """Which images a classifier of the other folds classifies correctly."""
    right = torch.zeros(len(values), dtype=torch.bool)
    for fold, rows in enumerate(images.fold_rows):
        train, test = values[images.training(fold)], values[rows]
        ((_, codes),), ((_, others),) = train.of.items(), test.of.items()
        right[rows] = logistic(codes, train.labels).scores(others).argmax(1) == test.labels
    return right


def _tuned(name: str, knobs: dict[str, Any], images: FoldedImages) -> Bool[Tensor, "n"]:
    right = torch.zeros(len(images), dtype=torch.bool)
    for fold, rows in enumerate(images.fold_rows):
        with quiet():
            recipe = finetune.recipe(
                **_source(name), **knobs, fitted_head=True, fold=fold, folds=len(images.fold_rows), every=0
            )
        right[rows] = quick_fit(recipe).right
    return right
