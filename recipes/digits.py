"""Handwritten digits from scratch: nothing is downloaded, a minute on two cores."""

import lightning.pytorch as pl

from fulgurite.data.digits import Digits
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build, check_takes
from fulgurite.recipes.recipe import Recipe, standard_probes


def recipe(
    *,
    network: str = "small_vgg",
    epochs: int = 15,
    lr: float = 4e-3,
    weight_decay: float = 0.01,
    batch_size: int = 64,
    size: int = 32,
    shift: float = 2.0,
    noise: float = 0.6,
    every: int = 1,
    budget: float | None = None,
    seed: int = 0,
) -> Recipe:
    """Train a small CNN on scikit-learn's 1797 handwritten digits, and watch it learn.

    Args:
        network: small_vgg, which keeps position, so that class images show digits; or any other by name.
        epochs: passes over the training images.
        lr: the highest learning rate.
        weight_decay: of the weights.
        batch_size: images in a step.
        size: side in pixels, to which the digits of 8 x 8 are enlarged.
        shift: augmentation: training images are moved by up to this many pixels (of 32).
        noise: augmentation: and get noise of up to this standard deviation, which makes class images plainer.
        every: epochs from one run of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take; no limit without it.
        seed: of weights, order, augmentation and split.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    data = Digits(size=size, shift=shift, noise=noise, batch_size=batch_size, seed=seed)
    net = build(network, classes=len(data.classes), channels=data.channels, mean=data.mean, std=data.std)
    check_takes(net, data.channels, data.size)
    model = Classifier(net, classes=len(data.classes), lr=lr, weight_decay=weight_decay, seed=seed)
    return Recipe(model, data, epochs, standard_probes(every=every, budget=budget, precise=True))
