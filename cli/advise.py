"""Command: measure fine-tuning strategies on your images and recommend one."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, get_args

import jsonargparse
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.cli import advise_networks, options
from fulgurite.cli.advise_trials import Trials, interrupted
from fulgurite.cli.folds import FoldedImages
from fulgurite.cli.run_lock import claimed, name_others
from fulgurite.data.splits import few, set_aside
from fulgurite.models.strategies import Strategy
from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.counted import counted
from fulgurite.probes.progress import progress_bar
from fulgurite.probes.record import nearest
from fulgurite.probes.representation.linear import ridge
from fulgurite.probes.representation.stages import Features, features
from fulgurite.recipes import finetune
from fulgurite.recipes import run as runs
from fulgurite.recipes.advice import PROBES, Tried, command, estimate, quadrant
from fulgurite.recipes.advice_report import Advice
from fulgurite.recipes.quick_fit import QuickFit, quick_fit, quiet
from fulgurite.recipes.recipe import Recipe

SIZES = (5, 20, 100)
"""Training images of each class on the learning curve, before half of them and all."""
STRATEGIES: tuple[Strategy, ...] = ("linear", "last", "layerwise", "full", "scratch")
Rights = Mapping[str, Bool[Tensor, "n"]]
"""By stage, which images its linear classifier classifies correctly."""
Recipes = Callable[[str, int, int], Recipe]
"""The recipe of a strategy, a fold and a number of epochs."""


def run(verb: str, words: Sequence[str]) -> int:  # noqa: ARG001
    """Measure, print, and write a folder: `folder --path DATA --network NAME ...`, or `--networks A,B,C`.

    Raises:
        ValueError: an unknown option; images, a network or numbers that no advice is possible for.
    """
    parser = jsonargparse.ArgumentParser(
        prog="fulgurite advise folder",
        exit_on_error=False,
        allow_abbrev=False,
    )
    several = any(word.partition("=")[0] in ("--networks", "--networks+") for word in words)
    measure_them = advise_networks.rank_networks if several else measure
    parser.description = (measure_them.__doc__ or "").split("\n\n    Args:")[0]
    parser.add_function_arguments(measure_them, as_group=False, skip={"save", "trials"})
    where = "to write to; the next free one in runs/advise without it"
    parser.add_argument("--folder", type=str | None, default=None, help=where)
    if not words or words[0] in ("-h", "--help"):
        parser.print_help()
        return 0
    if words[0] != "folder":
        raise ValueError(f"no advice on {words[0]!r}; {nearest(words[0], ['folder'])}")
    args = vars(options.parsed(parser, words[1:]))
    asked = json.loads(json.dumps({name: value for name, value in args.items() if name != "folder"}))
    root, chosen = runs.ROOT / "advise", args.pop("folder")
    if not chosen and not several:
        chosen = interrupted(root, asked, "advice.json")
    with claimed(chosen, root=root) as own:
        folder = own.folder
        file = advise_networks.FILE if several else "advice.json"
        if (folder / file).exists():
            raise ValueError(f"{folder} holds advice already; choose another --folder")
        if several:
            name_others(folder, ours=(advise_networks.PLOT,))
            print(
                "\n".join(
                    advise_networks.rank_networks(**args, save=advise_networks.saved_in(folder)).lines()
                )
            )
            print(f"\n{file} is in {folder}")
            return 0
        trials = Trials(folder, asked)
        if trials.found["trials"]:
            print(
                f"continuing in {folder}, with {counted(len(trials.found['trials']), 'training')} done before"
            )
        else:
            name_others(folder, ours=("accuracy_by_stage.png",))
            print(f"each training is saved in {folder}; the same command continues it if it is interrupted")
        found = measure(**args, trials=trials)
        print("\n".join(found.lines()))
        LatestPictures(folder).log({"accuracy_by_stage": Picture(found.picture())}, 0)
        write_atomic(folder / "advice.json", json.dumps(found.as_dict(), indent=2) + "\n")
        print(f"\nadvice.json and accuracy_by_stage.png are in {folder}")
    return 0


def measure(
    *,
    path: str,
    network: str | None = None,
    weights: str | None = None,
    backbone: str | None = None,
    fitted_head: bool = False,
    size: int = 128,
    strategies: list[Strategy] | None = None,
    folds: int = 3,
    epochs: int = 5,
    budget: float | None = None,
    augment: bool | str = True,
    batch_size: int = 32,
    lr: float = 1e-3,
    workers: int = 0,
    seed: int = 0,
    trials: Trials | None = None,
) -> Advice:
    """Measure how well a network's features fit a folder of images, and which strategy is best.

    All images but those of `path/test` are split into folds; each fold is predicted by classifiers of the
    others. Knobs that the recipe `finetune` also has are the same there.

    Args:
        path: the folder, `path/CLASS/*.jpg`, or `path/train/CLASS/*.jpg` and `path/val/...`.
        network: torchvision/resnet18 by default, or the backbone's; torchvision/NAME, timm/NAME, small_vgg.
        weights: from a safetensors file, a state dict or a checkpoint of ours; the library's without it.
        backbone: or from the folder of a run: its network with its best weights.
        fitted_head: begin with a logistic regression of the training images for a head.
        size: side of the square that images are cropped to.
        strategies: to compare, with commas; linear, last, layerwise, full and scratch without it.
        folds: how often everything is repeated, 2 or more; 2 give poor intervals.
        epochs: of each training.
        budget: seconds that comparing the strategies may take, about; epochs are reduced if needed.
        augment: how training images are changed: none, light, standard (or true), colour, strong, mixup,
            cutmix, mixup_cutmix.
        batch_size: images in a step.
        lr: the highest learning rate.
        workers: processes that load images.
        seed: of folds, weights, order and augmentation.
        trials: the trainings that are done already, and where others are saved.

    Raises:
        ValueError: images, a network or numbers that no advice is possible for.
    """
    if epochs < 1 or (budget is not None and not budget > 0):
        raise ValueError(f"epochs={epochs}, budget={budget}; wanted 1 epoch or more, and seconds above 0")
    wanted = STRATEGIES if strategies is None else tuple(dict.fromkeys(strategies))
    if not wanted:
        raise ValueError(f"no strategies to compare; wanted some of {', '.join(get_args(Strategy))}")
    images = FoldedImages(path, folds, size=size, workers=workers, seed=seed)
    knobs: dict[str, Any] = {"path": path, "network": network, "weights": weights, "backbone": backbone}
    knobs |= {
        "fitted_head": fitted_head,
        "size": size,
        "augment": augment,
        "batch_size": batch_size,
        "lr": lr,
        "workers": workers,
    }

    def recipe(strategy: str, fold: int, epochs: int) -> Recipe:
        own = {**_for(strategy, knobs), "strategy": strategy, "seed": seed, "epochs": epochs}
        return finetune.recipe(**own, fold=fold, folds=folds, every=0)

    with quiet():
        started = perf_counter()
        measured = _measured(recipe("linear", 0, 1).network, images, seed)
        took = perf_counter() - started

        def affordable() -> int:
            return epochs if budget is None else _affordable(recipe, wanted, folds, epochs, budget)

        counts = {name: len(files) for name, files in images.files.items()}
        epochs = affordable() if trials is None else trials.epochs(counts, affordable)
        tried = _tried(recipe, wanted, folds, epochs, trials)
    *_, half, whole = measured.values()
    cell, (*_, last) = quadrant(whole, half), whole
    probe = PROBES[cell.stage == last]
    commands = {name: _command(name, knobs, epochs, seed) for name in wanted}
    return Advice(
        {name: len(files) for name, files in images.files.items()},
        folds,
        epochs,
        {count: images.estimates(rights) for count, rights in measured.items()},
        cell,
        {probe: Tried(images.estimates(whole)[cell.stage], took), **tried},
        {probe: _probing(cell.stage, knobs), **commands},
        took,
        [name for name in get_args(Strategy) if name not in wanted],
    )


def _for(strategy: str, knobs: Mapping[str, Any]) -> dict[str, Any]:
    pretrained = ("weights", "fitted_head")
    return {name: value for name, value in knobs.items() if strategy != "scratch" or name not in pretrained}


def _command(strategy: str, knobs: Mapping[str, Any], epochs: int, seed: int) -> str:
    """The command that trains a strategy on all images; defaults of the recipe are left out."""
    usual = inspect.signature(finetune.recipe).parameters
    args = {**_for(strategy, knobs), "epochs": epochs, "seed": seed}
    chosen_knobs = {name: value for name, value in args.items() if value != usual[name].default}
    return command("finetune", {"path": chosen_knobs.pop("path"), "strategy": strategy, **chosen_knobs})


def _probing(stage: str, knobs: Mapping[str, Any]) -> str:
    """The command that fits a linear classifier of a stage."""
    network, weights = knobs["network"] or finetune.NETWORK, knobs["weights"]
    if backbone := knobs["backbone"]:
        network = finetune.network_of(Path(backbone))
        weights = str(runs.checkpoint(Path(backbone), "best"))
    known = {"path": knobs["path"], "network": network, "weights": weights, "pretrained": not weights or None}
    how = {"size": knobs["size"], "layers": stage, "classifier": "ridge", "fresh": False}
    return command("stages", {**known, **how})


def _measured(network: nn.Module, images: FoldedImages, seed: int) -> dict[str, Rights]:
    """Which images linear classifiers of each stage classify correctly, by the number of training images."""
    all_features = features(network, images.loader, progress="Features")
    found: dict[str, dict[str, Tensor]] = {}
    for fold, rows in enumerate(progress_bar(images.fold_rows, "Stages", unit="fold")):
        train, test = all_features[images.training(fold)], all_features[rows]
        for count, chosen in _growing(train, images, seed).items():
            for stage, values in train.of.items():
                right = found.setdefault(count, {}).setdefault(
                    stage, torch.zeros(len(all_features), dtype=torch.bool)
                )
                head = ridge(values[chosen], train.labels[chosen])
                right[rows] = head.scores(test.of[stage]).argmax(1) == test.labels
    return dict(found)


def _growing(train: Features, images: FoldedImages, seed: int) -> dict[str, Int[Tensor, "m"]]:
    """Which of a fold's training images: few of each class, half of them, and all."""
    folds = len(images.fold_rows)
    least = min(map(len, images.files.values())) * (folds - 1) // folds
    sizes = [count for count in SIZES if 2 * count < least]
    labels = train.labels
    return {
        **{f"{count} a class": few(labels, images.classes, per_class=count, seed=seed) for count in sizes},
        "half": set_aside(labels, share=0.5, seed=seed)[0],
        "all": torch.arange(len(labels)),
    }


def _affordable(recipe: Recipes, strategies: Sequence[str], folds: int, epochs: int, budget: float) -> int:
    """The epochs of each training that fit into the budget, by one epoch of the most expensive strategy."""
    dearest = next((name for name in ("full", "scratch") if name in strategies), strategies[-1])
    seconds = quick_fit(recipe(dearest, 0, 1)).seconds
    return max(1, min(epochs, int((budget - seconds) / (seconds * len(strategies) * folds))))


def _tried(
    recipe: Recipes, strategies: Sequence[str], folds: int, epochs: int, saved: Trials | None
) -> dict[str, Tried]:
    found = {}
    with progress_bar(label="Strategies", total=len(strategies) * folds, unit="training") as bar:
        for strategy in strategies:
            trials = []
            for fold in range(folds):

                def trained(strategy: str = strategy, fold: int = fold) -> QuickFit:
                    return quick_fit(recipe(strategy, fold, epochs))

                trials.append(trained() if saved is None else saved.fit(strategy, fold, trained))
                bar.update()
            count = sum(len(one.right) for one in trials)
            accuracy = estimate([one.accuracy for one in trials], images=count)
            found[strategy] = Tried(accuracy, fmean(one.seconds for one in trials))
    return found
