"""CIFAR-10 from scratch, or another small torchvision set: a ResNet with a 3 x 3 stem."""

from typing import Literal

import lightning.pytorch as pl

from fulgurite.data.torchvision_sets import TorchvisionSet
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build, check_takes
from fulgurite.recipes.recipe import Recipe, may_download, standard_probes


def recipe(
    *,
    dataset: str = "CIFAR10",
    root: str = "datasets",
    network: str = "resnet18_3x3",
    epochs: int = 30,
    optimizer: Literal["adamw", "sgd"] = "sgd",
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    augment: bool = True,
    workers: int = 2,
    every: int = 1,
    budget: float | None = 0.1,
    seed: int = 0,
) -> Recipe:
    """Train a ResNet-18 with a 3 x 3 stem on CIFAR-10, which torchvision downloads into `root`.

    Meant for a GPU: an epoch there takes seconds, and on two cores about half an hour.

    Args:
        dataset: any torchvision classification set by name: CIFAR10, CIFAR100, SVHN, MNIST, FashionMNIST ...
        root: where the data lie, or go.
        network: any network by name; those that end in 3x3 have a stem for small images.
        epochs: passes over the training images.
        optimizer: sgd (with Nesterov momentum 0.9) or adamw.
        lr: the highest learning rate.
        weight_decay: of the weights.
        batch_size: images in a step.
        augment: crop at random, and mirror where mirrored images keep their meaning.
        workers: processes that load images.
        every: epochs from one look of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take; no limit without it.
        seed: of weights, order, augmentation and split.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    data = TorchvisionSet(
        dataset,
        root=root,
        # a run's folder may name any place
        download=root == "datasets" or may_download(),
        augment=augment,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
    )
    net = build(network, classes=len(data.classes), channels=data.channels, mean=data.mean, std=data.std)
    check_takes(net, data.channels, data.size)
    how = {"optimizer": optimizer, "lr": lr, "weight_decay": weight_decay, "seed": seed}
    model = Classifier(net, classes=len(data.classes), **how)
    return Recipe(model, data, epochs, standard_probes(every=every, budget=budget))
