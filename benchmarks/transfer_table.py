"""Accuracy of transfer strategies on five new classes by number of images and similarity of source."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from statistics import fmean
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulgurite.cli.advise import STRATEGIES
from fulgurite.data.digits import Digits
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.shapes import Shapes
from fulgurite.data.splits import folded
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build
from fulgurite.models.strategies import Strategy
from fulgurite.models.weights import fitted, load
from fulgurite.probes.representation.linear import ridge
from fulgurite.probes.representation.stages import Features, features
from fulgurite.recipes.advice import FOLLOWING, LECTURE, PROBES, Estimate, Tried, estimate, recommended
from fulgurite.recipes.quick_fit import quick_fit, quiet
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.standard_baseline import standard_baseline
from fulgurite.recipes.transfer import seeded, transfer

Images = tuple[Tensor, Tensor]
WORLDS = ("shapes", "digits")
"""Ten classes each: five that a network is trained on first, and five others that it is fine-tuned on."""
RUNS = {5: 40, 20: 20, 100: 10}
"""Training images of each class, and epochs: much is the last."""
HOW = {
    "stages": 1,
    "decay": 0.4,
    "every_stage": 2,
    "optimizer": "adamw",
    "lr": 4e-3,
    "weight_decay": 0.01,
    "class_weights": False,
    "smoothing": 0.0,
    "patience": None,
    "every": 0,
    "budget": None,
}
OWN: tuple[Strategy, ...] = ("scratch",)
Runs = dict[tuple[str, int, str], list[float]]
"""Accuracies, or seconds, of the seeds; by source, images of each class, and strategy or stage."""


def table_rows(target: str, *, quick: bool) -> tuple[list[list], list[list], list[list]]:
    """The lecture's table, the strategies behind it, and linear classifiers by stage, on test images."""
    runs = dict(list(RUNS.items())[: 1 if quick else len(RUNS)])
    found, took, linear = Runs(), Runs(), Runs()
    for seed in range(2 if quick else 5):
        known = {source: source_network(source, seed=seed, quick=quick) for source in WORLDS}
        for count, epochs in runs.items():
            new = partial(unknown, target, count, seed=seed)
            for source, network in known.items():
                for stage, right in probed(network, new, seed=seed).items():
                    linear.setdefault((source, count, stage), []).append(right)
            for source in (*WORLDS, "nothing"):
                for strategy in OWN if source == "nothing" else STRATEGIES[:-1]:
                    one = tried(known.get(source), strategy, new(), epochs=epochs, seed=seed)
                    found.setdefault((source, count, strategy), []).append(one[0])
                    took.setdefault((source, count, strategy), []).append(one[1])
                    say(target, seed, count, source, strategy, f"{100 * one[0]:.1f} %, {one[1]:.1f} s")
    strategies = [
        [count, source, strategy, *percentages(estimate(values)), fmean(took[source, count, strategy])]
        for (source, count, strategy), values in found.items()
    ]
    stages = [
        [count, source, stage, *percentages(estimate(values))]
        for (source, count, stage), values in linear.items()
        if stage != PROBES[True]
    ]
    cells = [cell(source, target, count, found, took, linear) for source in WORLDS for count in runs]
    return cells, strategies, stages


def tried(
    known: nn.Module | None, strategy: Strategy, data: ImageData, *, epochs: int, seed: int
) -> tuple[float, float]:
    """Accuracy on the test images, and the seconds of training; scratch starts untrained."""
    seeded(seed)
    network = small(data)
    if known is not None:
        load(network, fitted(known.state_dict(), network, fresh_head=True), source="the source")
    with quiet():
        recipe = transfer(network, data, strategy=strategy, epochs=epochs, seed=seed, **HOW)
    one = quick_fit(recipe, part="test")
    return one.accuracy, one.seconds


def probed(network: nn.Module, new: Callable[..., ImageData], *, seed: int) -> dict[str, float]:
    """Accuracy of a linear classifier of each stage, and of the likeliest stage before the last."""
    data = new(plain=True)
    train, test = (features(network, images) for images in held(data))
    right = {
        stage: ridge(values, train.labels).score(test.of[stage], test.labels).accuracy
        for stage, values in train.of.items()
    }
    likely = chosen(train, data.classes, seed=seed)
    *_, last = right
    return {**right, PROBES[False]: right[likely], PROBES[True]: right[last]}


def chosen(train: Features, classes: tuple[str, ...], *, seed: int) -> str:
    """The stage before the last whose linear classifier does best in five folds of the training images."""
    right = dict.fromkeys([*train.of][:-1], 0)
    for fold in range(5):
        kept, aside = (train[rows] for rows in folded(train.labels, classes, fold=(fold, 5), seed=seed))
        for stage in right:
            right[stage] += ridge(kept.of[stage], kept.labels).score(aside.of[stage], aside.labels).right
    return max(reversed([*right]), key=lambda stage: right[stage])


def cell(source: str, target: str, count: int, found: Runs, took: Runs, linear: Runs) -> list:
    """The lecture's strategy, the best measured, the cheapest that is as good, and the gain by transfer."""
    ways = {name: values for (of, which, name), values in found.items() if (of, which) == (source, count)}
    ways |= {name: linear[source, count, name] for name in PROBES.values()}
    scratch = found["nothing", count, "scratch"]
    # a linear probe costs almost nothing
    seconds = {name: fmean(took.get((source, count, name), [0.0])) for name in ways}
    table = {name: Tried(estimate(values), seconds[name]) for name, values in ways.items()}
    transfer = max(ways, key=lambda name: table[name].accuracy.mean)
    gain = estimate([one - other for one, other in zip(ways[transfer], scratch, strict=True)])
    table["scratch"] = Tried(estimate(scratch), fmean(took["nothing", count, "scratch"]))
    best = max(table, key=lambda name: table[name].accuracy.mean)
    known, top = (source == target, count < max(RUNS)), table[best].accuracy
    holds = any(
        table[name].accuracy.mean >= top.mean - top.error for name in FOLLOWING[known] if name in table
    )
    return [
        *(source, count, LECTURE[known], f"{best} {top}", recommended(table), "yes" if holds else "no"),
        f"{100 * gain.mean:+.1f} ± {100 * gain.half:.1f}",
    ]


def source_network(world: str, *, seed: int, quick: bool = False) -> nn.Module:
    """The small network, trained on the first five classes."""
    seeded(seed)
    data: Mapping[str, ImageData] = {
        "digits": Digits(only=range(5), seed=seed),
        "shapes": Shapes(only=range(5), channels=1, images=2000, held_out=5, seed=seed),
    }
    epochs = {"digits": 6, "shapes": 12}[world] // (3 if quick else 1)
    return standard_baseline(Recipe(Classifier(small(data[world]), classes=5, lr=4e-3), data[world], epochs))


def unknown(world: str, count: int | None, *, plain: bool = False, seed: int) -> ImageData:
    """The other five classes, with this many training images of each; without augmentation."""
    if world == "digits":
        changes: dict[str, Any] = {"shift": 0, "noise": 0} if plain else {}
        return Digits(only=range(5, 10), per_class=count, batch_size=16, seed=seed, **changes)
    images = 5 * (count or 400)
    return Shapes(only=range(5, 10), channels=1, images=images, held_out=500, batch_size=16, seed=seed)


def small(data: ImageData) -> nn.Module:
    return build("small_vgg", classes=5, channels=1, mean=data.mean, std=data.std)


def held(data: ImageData) -> tuple[Images, Images]:
    """Training and test images in memory: neither alternative waits for them."""
    data.setup()
    train, test = (
        next(iter(DataLoader(part, len(part), collate_fn=part.collate))) for part in (data.train, data.test)
    )
    return (train[0], train[1]), (test[0], test[1])


def say(*words: object) -> None:
    """Print progress: it takes minutes."""
    print(*words, file=sys.stderr, flush=True)


def percentages(accuracy: Estimate) -> list[float]:
    return [100 * accuracy.mean, 100 * accuracy.half]
