"""Transfer learning measured: feature cache, fine-tuning strategies, and the advisor.

python -m benchmarks.transfer [--quick] [--only speed|photographs|layers|shapes|digits] [--size N]

The first table is speed: a linear classifier of cached features and the same head trained through the
frozen network in as many epochs. The second is ants against bees by a real SqueezeNet, where FULGURITE_DATA
names a folder that holds them; with the advisor's recommendation. The third is how transferable each stage is
(`benchmarks/transfer_layers.py`). Then the lecture's table on data that need no download: five shapes, and
five digits, by a network that knows five others (similar) or those of the other kind (different), from 5 and
20 images of each (little) or 100 (much).
"""

import argparse
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import in_turn, show
from benchmarks.transfer_layers import layer_lines
from benchmarks.transfer_table import (
    WORLDS,
    Images,
    held,
    percentages,
    say,
    source_network,
    table_rows,
    unknown,
)
from fulgurite.cli.advise import measure
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.shapes import Shapes
from fulgurite.models.classifier import warm_cosine
from fulgurite.models.networks import build
from fulgurite.models.strategies import Strategy
from fulgurite.probes.representation.linear import Head, ridge, train_head
from fulgurite.probes.representation.logistic import logistic
from fulgurite.probes.representation.stages import features, stages
from fulgurite.recipes import finetune
from fulgurite.recipes.advice import PROBES, Estimate, Tried, estimate
from fulgurite.recipes.quick_fit import quick_fit, quiet
from fulgurite.recipes.transfer import seeded

EPOCHS = 30
PHOTOGRAPHS, SQUEEZENET = "hymenoptera_short256_q85.zip", "squeezenet1_0_imagenet_fp16.safetensors"
TRANSFERS: tuple[Strategy, ...] = ("linear", "last", "layerwise")
TUNING = {"network": "torchvision/squeezenet1_0", "workers": 0, "augment": "light"}
FITTED = {"fitted_head": True, "lr": 1e-4, "epochs": 3}
SCRATCH = {"weights": None, "lr": 1e-3, "epochs": 6}
"""Epochs and learning rate of fresh weights, which need more of both."""


def speed_rows(*, quick: bool) -> list[list]:
    """The time of cached features includes the pass that computes them."""
    rows = []
    for name, network, train, val in speed_cases(quick=quick):
        answers: dict[str, float] = {}
        contestants = {
            "through the network": partial(through, network, train, val, answers),
            "cached": partial(cached, network, train, val, answers),
        }
        seconds = in_turn(contestants, repeats=1 if quick else 3)
        rows += [
            [name, who, took, seconds["through the network"] / took, 100 * answers[who]]
            for who, took in seconds.items()
        ]
    return rows


def speed_cases(*, quick: bool) -> Iterator[tuple[str, nn.Module, Images, Images]]:
    seeded(0)
    known = source_network("digits", seed=0, quick=quick)
    yield "small_vgg, digits of 32 px", known, *held(unknown("digits", None, plain=True, seed=0))
    count = 300 if quick else 600
    shapes = Shapes(classes=5, size=64, images=count, held_out=count // 3)
    yield f"ResNet-18, {count} shapes of 64 px", build("torchvision/resnet18", classes=5), *held(shapes)


def cached(network: nn.Module, train: Images, val: Images, answers: dict[str, float]) -> None:
    """One pass for all images, then the epochs of only the head."""
    *_, layer = stages(network, train[0][:1])
    known, unknown = features(network, train, [layer]), features(network, val, [layer])
    head = train_head(known.of[layer], known.labels, epochs=EPOCHS, seed=0)
    answers["cached"] = head.score(unknown.of[layer], unknown.labels).accuracy


def through(network: nn.Module, train: Images, val: Images, answers: dict[str, float]) -> None:
    """The same fresh head and order; each image goes through the network in each epoch, without gradients."""
    own = [part for part in network.modules() if isinstance(part, nn.Linear)][-1]
    network.eval()
    torch.manual_seed(0)
    head = nn.Linear(own.in_features, int(train[1].max()) + 1)
    head_inputs: list[Tensor] = []
    hook = own.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0]))
    groups = [{"params": [head.weight]}, {"params": [head.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, 2e-3, weight_decay=0.01)
    count = EPOCHS * -(-len(train[0]) // 64)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(warm_cosine, steps=count))

    def scores(images: Tensor) -> Tensor:
        with torch.no_grad():
            network(images)
        return head(head_inputs.pop())

    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train[0])).split(64):
            optimizer.zero_grad()
            F.cross_entropy(scores(train[0][rows]), train[1][rows]).backward()
            optimizer.step()
            schedule.step()
    right = [
        scores(images).argmax(1) == labels
        for images, labels in zip(*(part.split(64) for part in val), strict=True)
    ]
    answers["through the network"] = float(torch.cat(right).double().mean())
    hook.remove()


def photograph_rows(folder: Path, *, size: int, quick: bool) -> tuple[list[list], list[str]]:
    """Strategies on the validation photographs, and the recommendation of the advisor."""
    with tempfile.TemporaryDirectory() as place:
        zipfile.ZipFile(folder / PHOTOGRAPHS).extractall(place)
        files = {"path": place, "weights": str(folder / SQUEEZENET)}
        knobs: dict[str, Any] = {**TUNING, **files, "size": size}
        rows, found = [], dict[str, Tried]()
        heads, stagewise = linear_probes(knobs)
        for name, head in heads.items():
            rows.append([name, *percentages(head.accuracy), head.seconds])
            say(name, head.accuracy)
        for strategy in (*TRANSFERS, "scratch"):
            own = knobs | (SCRATCH if strategy == "scratch" else FITTED)
            with quiet():
                trials = [
                    quick_fit(finetune.recipe(**own, strategy=strategy, seed=seed, every=0))
                    for seed in range(2 if quick else 3)
                ]
            accuracy = estimate([one.accuracy for one in trials], images=len(trials[0].right))
            found[strategy] = Tried(accuracy, fmean(one.seconds for one in trials))
            rows.append([strategy, *percentages(accuracy), found[strategy].seconds])
            say(strategy, accuracy)
        advice = measure(**knobs, **FITTED, strategies=list(TRANSFERS))
    *_, last = stagewise
    found |= {PROBES[True]: stagewise[last], PROBES[False]: stagewise[advice.quadrant.stage]}
    best = max(found.values(), key=lambda one: one.accuracy.mean).accuracy
    lag = best.mean - found[advice.strategy].accuracy.mean
    summary = [
        *advice.lines()[:-1],
        f"The advisor's {advice.strategy} is {100 * lag:.1f} points below the best on the validation "
        f"images; one standard error is {100 * best.error:.1f}",
    ]
    return rows, summary


def linear_probes(knobs: Mapping[str, Any]) -> tuple[dict[str, Tried], dict[str, Tried]]:
    """Linear classifiers of cached features: of the last stage, by kind; and ridge, by stage."""
    started = perf_counter()
    plain = {name: knobs[name] for name in ("network", "weights", "path", "size")}
    with quiet():
        recipe = finetune.recipe(**plain, augment=False, every=0, workers=0)
    assert isinstance(recipe.data, ImageData)
    recipe.data.setup()
    train, val = (features(recipe.model.network, part) for part in (recipe.data.train, recipe.data.val))
    passes = perf_counter() - started

    def tried(fit: Callable[..., Head], layer: str) -> Tried:
        started = perf_counter()
        share = fit(train.of[layer], train.labels).score(val.of[layer], val.labels)
        half = (share.interval[1] - share.interval[0]) / 2
        seconds = passes + perf_counter() - started
        return Tried(Estimate(share.accuracy, half / 1.96, half), seconds)

    *_, last = train.of
    kinds = {f"linear probe, {fit.__name__}": tried(fit, last) for fit in (ridge, logistic)}
    return kinds, {layer: tried(ridge, layer) for layer in train.of}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer images, epochs, seeds and sizes")
    parser.add_argument(
        "--only", choices=["speed", "photographs", "layers", *WORLDS], help="one of the tables"
    )
    parser.add_argument("--size", type=int, default=128, help="of the photographs")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only in (None, "speed"):
        show(
            f"A linear classifier of a frozen network, {EPOCHS} epochs; bars: cached at least 15 x faster,\n"
            "accuracy within 0.5 points",
            ["what", "by", "s", "x faster", "accuracy %"],
            speed_rows(quick=args.quick),
        )
    folder = Path(os.environ.get("FULGURITE_DATA", ""))
    if args.only in (None, "photographs"):
        if not (folder / PHOTOGRAPHS).is_file():
            print(f"\nno {PHOTOGRAPHS} where FULGURITE_DATA points: no photographs")
        else:
            rows, summary = photograph_rows(folder, size=args.size, quick=args.quick)
            show(
                f"Ants and bees by SqueezeNet at {args.size} px, 153 validation images; bars: linear\n"
                "probe at least 92 %, last or layerwise no worse, scratch 15 points below, advice\n"
                "within a standard error",
                ["by", "accuracy %", "± 95 %", "s"],
                rows,
            )
            print("\n" + "\n".join(summary))
    if args.only in (None, "layers"):
        print("\n" + "\n".join(layer_lines(folder, quick=args.quick)))
    for world in WORLDS:
        if args.only in (None, world):
            cells, strategies, stages = table_rows(world, quick=args.quick)
            show(
                f"Five other {world} by a network that knows ...; bar: transfer above scratch by more than\n"
                "the interval at 5 and 20 images of each class",
                [
                    "source",
                    "of each",
                    "the lecture",
                    "measured best",
                    "cheapest as good",
                    "holds",
                    "over scratch",
                ],
                cells,
            )
            show("Strategies", ["of each", "source", "strategy", "accuracy %", "± 95 %", "s"], strategies)
            show("Linear classifiers", ["of each", "source", "stage", "accuracy %", "± 95 %"], stages)


if __name__ == "__main__":
    main()
