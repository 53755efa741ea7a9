"""Five digits from a few images each, by a network trained on the other five, or on shapes: seconds."""

from typing import Any, Literal

from torch import nn

from fulgurite.data.digits import Digits
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.shapes import Shapes
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build, check_takes
from fulgurite.models.weights import fitted, load
from fulgurite.recipes.knobs import passes_on, those_of
from fulgurite.recipes.recipe import Recipe, do_weights_follow
from fulgurite.recipes.standard_baseline import standard_baseline
from fulgurite.recipes.transfer import check_knobs, seeded, transfer


@passes_on(transfer, every_stage=6, epochs=60, lr=2e-3, every=20)
def recipe(
    *,
    source: Literal["digits", "shapes"] = "digits",
    network: str = "small_vgg",
    per_class: int = 5,
    source_epochs: int = 5,
    size: int = 32,
    shift: float = 2.0,
    noise: float = 0.3,
    batch_size: int = 8,
    **knobs: Any,
) -> Recipe:
    """Fine-tune a network trained on digits 0 to 4, or on synthetic shapes, on a few of each digit 5 to 9.

    `fulgurite fit finetune_digits --strategy gradual`. With five images of each digit (25 to train on), seed
    0, digits as the source: linear .66 of the test images, gradual .93, last .95, full .96, scratch .98:
    features for 0 to 4 help little for 5 to 9, and digits are easily learnt from scratch. On shapes: gradual
    .91, full .94. A run without probes takes about 15 s on one core.

    Args:
        source: what the network is trained on first: digits (0 to 4), or shapes, which look very different.
        network: small_vgg, or any other by name.
        per_class: how many of each digit from 5 to 9 to train on.
        source_epochs: passes over the images of the source.
        size: side in pixels, to which the digits of 8 x 8 are enlarged.
        shift: augmentation: training images are moved by up to this many pixels (of 32).
        noise: augmentation: and get noise of up to this standard deviation.
        batch_size: images in a step.
        epochs: passes over the few images.
        lr: the highest learning rate, that of the head.
    """
    check_knobs(**those_of(check_knobs, knobs))
    seed = knobs["seed"]
    seeded(seed)
    looks = {"size": size, "shift": shift, "noise": noise, "seed": seed}
    data = Digits(only=range(5, 10), per_class=per_class, batch_size=batch_size, **looks)
    if source == "digits":
        first: ImageData = Digits(only=range(5), **looks)
    else:
        first = Shapes(classes=5, channels=1, size=size, images=1000, held_out=5, seed=seed)
    teach = knobs["strategy"] != "scratch" and not do_weights_follow()
    net = _fresh(network, first if teach else data)
    if teach:
        net = _moved(network, _taught(net, first, epochs=source_epochs), data, seed=seed)
    return transfer(net, data, precise=True, **knobs)


def _fresh(name: str, data: ImageData) -> nn.Module:
    net = build(name, classes=len(data.classes), channels=data.channels, mean=data.mean, std=data.std)
    check_takes(net, data.channels, data.size)
    return net


def _taught(network: nn.Module, data: ImageData, *, epochs: int) -> nn.Module:
    return standard_baseline(Recipe(Classifier(network, classes=len(data.classes), lr=4e-3), data, epochs))


def _moved(name: str, source: nn.Module, data: ImageData, *, seed: int) -> nn.Module:
    """The network with a fresh head, which does not depend on random draws of the source."""
    seeded(seed)
    network = _fresh(name, data)
    load(network, fitted(source.state_dict(), network, fresh_head=True), source="the source")
    return network
