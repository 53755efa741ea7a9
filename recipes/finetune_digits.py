"""Five digits from a few images each, by a network that knows the other five, or only shapes: seconds."""

from typing import Literal

from torch import nn

from fulgurite.data.digits import Digits
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.shapes import Shapes
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build, check_takes
from fulgurite.models.strategies import Strategy
from fulgurite.models.weights import fitted, load
from fulgurite.recipes.recipe import Recipe, do_weights_follow
from fulgurite.recipes.standard_baseline import standard_baseline
from fulgurite.recipes.transfer import check_knobs, seeded, transfer


def recipe(
    *,
    source: Literal["digits", "shapes"] = "digits",
    strategy: Strategy = "linear",
    network: str = "small_vgg",
    per_class: int = 5,
    source_epochs: int = 5,
    stages: int = 1,
    decay: float = 0.4,
    every_stage: int = 6,
    size: int = 32,
    shift: float = 2.0,
    noise: float = 0.3,
    class_weights: bool = False,
    smoothing: float = 0.0,
    epochs: int = 60,
    patience: int | None = None,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    lr: float = 2e-3,
    weight_decay: float = 0.01,
    batch_size: int = 8,
    every: int = 20,
    budget: float | None = None,
    seed: int = 0,
) -> Recipe:
    """Tune a network that was trained on digits 0 to 4, or on made shapes, to a few of each digit 5 to 9.

    `fit finetune_digits --strategy gradual`. With five images of each digit (25 to train on), seed 0, digits
    as the source: linear .66 of the test images, gradual .93, last .95, full .96, scratch .98: what tells 0
    to 4 apart does little for 5 to 9, and digits are easily learnt afresh. Upon shapes: gradual .91, full
    .94. A run without probes takes about 15 s on one core.

    Args:
        source: what the network is trained on first: digits (0 to 4), or shapes, which look very different.
        strategy: linear (the head alone), last (and some stages before it), layerwise (all, the deeper the
            faster), gradual (so too, thawed one by one), full (all alike), scratch (fresh weights).
        network: small_vgg, or any other by name.
        per_class: how many of each digit from 5 to 9 to train on.
        source_epochs: passes over the images of the source.
        stages: how many before the head learn, in last.
        decay: what a stage learns at, times the rate of the next, in layerwise and gradual.
        every_stage: epochs from one thawing to the next, in gradual.
        size: side in pixels, to which the digits of 8 x 8 are brought.
        shift: augmentation: training images are moved by up to so many pixels (of 32).
        noise: augmentation: and get noise of up to this standard deviation.
        class_weights: rare classes count as much as frequent ones.
        smoothing: the share of each label that is spread evenly over all classes.
        epochs: passes over the few images.
        patience: epochs without a better validation accuracy after which training stops.
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: the highest learning rate.
        weight_decay: of the weights.
        batch_size: images in a step.
        every: epochs from one look of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take; no limit without it.
        seed: of weights, order, augmentation and split.
    """
    check_knobs(
        decay=decay,
        every_stage=every_stage,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        smoothing=smoothing,
        patience=patience,
    )
    seeded(seed)
    looks = {"size": size, "shift": shift, "noise": noise, "seed": seed}
    data = Digits(only=range(5, 10), per_class=per_class, batch_size=batch_size, **looks)
    if source == "digits":
        first: ImageData = Digits(only=range(5), **looks)
    else:
        first = Shapes(classes=5, channels=1, size=size, images=1000, held_out=5, seed=seed)
    teach = strategy != "scratch" and not do_weights_follow()
    net = _fresh(network, first if teach else data)
    if teach:
        net = _moved(network, _taught(net, first, epochs=source_epochs), data, seed=seed)
    return transfer(
        net,
        data,
        strategy=strategy,
        stages=stages,
        decay=decay,
        every_stage=every_stage,
        epochs=epochs,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        class_weights=class_weights,
        smoothing=smoothing,
        patience=patience,
        every=every,
        budget=budget,
        precise=True,
        seed=seed,
    )


def _fresh(name: str, data: ImageData) -> nn.Module:
    net = build(name, classes=len(data.classes), channels=data.channels, mean=data.mean, std=data.std)
    check_takes(net, data.channels, data.size)
    return net


def _taught(network: nn.Module, data: ImageData, *, epochs: int) -> nn.Module:
    return standard_baseline(Recipe(Classifier(network, classes=len(data.classes), lr=4e-3), data, epochs))


def _moved(name: str, source: nn.Module, data: ImageData, *, seed: int) -> nn.Module:
    """The network with a fresh head, which is the same whatever the source has drawn."""
    seeded(seed)
    network = _fresh(name, data)
    load(network, fitted(source.state_dict(), network, fresh_head=True), source="the source")
    return network
