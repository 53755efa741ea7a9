"""Wolf or husky with a ground truth: a network that may use the background instead of the shape."""

import lightning.pytorch as pl

from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.faithfulness import Faithfulness
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.split_accuracy import SplitAccuracy
from fulgurite.data.datasets import InMemory
from fulgurite.data.shapes import Shapes
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build, check_takes
from fulgurite.recipes.recipe import Recipe

SHAPES = (0, 1, 2, 3, 5, 6)
"""Disc, square, triangle, star, cross and heart: those without holes, which a mask encloses."""


def recipe(
    *,
    shortcut: float = 0.95,
    network: str = "all_conv",
    images: int = 2000,
    held_out: int = 300,
    size: int = 32,
    epochs: int = 25,
    lr: float = 4e-3,
    weight_decay: float = 0.01,
    batch_size: int = 64,
    every: int = 5,
    budget: float | None = None,
    seed: int = 0,
) -> Recipe:
    """Train a CNN on synthetic shapes whose background correlates with the class, and watch it use that.

    `SplitAccuracy` shows the accuracy on validation images, which have the shortcut, on images without it,
    and on cue conflicts with the shape bias; `Faithfulness` how much of each method's attribution falls on
    the shape. With `--shortcut 0` the network learns the shapes instead. Some minutes on two cores;
    the figures of both, with three seeds, are in docs/shortcut.md (`python -m benchmarks.shortcut`).

    Args:
        shortcut: the probability that the background's texture is the class's; 0 for backgrounds without
            information on the class.
        network: all_conv, which keeps places well; or any other by name.
        images: to train on.
        held_out: to validate on; as many without the shortcut, and as many cue conflicts.
        size: side in pixels.
        epochs: passes over the training images.
        lr: the highest learning rate.
        weight_decay: of the weights.
        batch_size: images in a step.
        every: epochs from one run of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take; no limit without it.
        seed: of weights, images and order.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    if every < 0:
        raise ValueError(
            f"every={every}; wanted epochs from one run of the probes to the next, or 0 for no probes"
        )
    data = data_of(shortcut, images=images, held_out=held_out, size=size, batch_size=batch_size, seed=seed)
    net = build(network, classes=len(data.classes), channels=data.channels, mean=data.mean, std=data.std)
    check_takes(net, data.channels, data.size)
    model = Classifier(net, classes=len(data.classes), lr=lr, weight_decay=weight_decay, seed=seed)
    return Recipe(model, data, epochs, _probes(data, every=every, budget=budget))


def data_of(
    shortcut: float, *, images: int, held_out: int, size: int, seed: int, batch_size: int = 64
) -> Shapes:
    """The shapes, after setup."""
    data = Shapes(
        classes=12,
        only=SHAPES,
        shortcut=shortcut,
        images=images,
        held_out=held_out,
        size=size,
        batch_size=batch_size,
        seed=seed,
    )
    data.setup()
    # drawn once, not at each epoch again
    scenes = data.train.scenes(range(images))  # pyright: ignore[reportAttributeAccessIssue]
    data.train = InMemory(scenes.images, scenes.labels, data.classes)
    return data


def occlusion_of(size: int) -> dict[str, object]:
    """Windows for images of this size, of the mean colour: a hidden square must not look like a shape."""
    return {"window": max(1, 3 * size // 16), "stride": max(1, size // 16), "fill": "mean"}


def _probes(data: Shapes, *, every: int, budget: float | None) -> list[ProbeCallback]:
    if not every:
        return []
    shared = None if budget is None else Budget(budget)
    methods = {"occlusion": occlusion_of(data.size), "grad_cam": {}, "guided_backprop": {}}
    others = {"without the shortcut": data.test} | ({"conflict": data.conflict} if data.shortcut else {})
    return [
        Metrics(every=every, budget=shared),
        SplitAccuracy(others, every=every, budget=shared),
        Faithfulness(methods, images=24, every=every, budget=shared),
        Attribution(methods, every=every, budget=shared),
    ]
