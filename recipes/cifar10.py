"""CIFAR-10 from scratch, or another small torchvision set: a ResNet with a 3 x 3 stem."""

from typing import Literal

import lightning.pytorch as pl

from fulgurite.data.folder_in_memory import FolderInMemory
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.torchvision_sets import TorchvisionSet
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build, check_takes
from fulgurite.recipes.recipe import Recipe, may_download, standard_probes


def recipe(
    *,
    dataset: str = "CIFAR10",
    root: str = "datasets",
    files: str | None = None,
    network: str = "resnet18_3x3",
    epochs: int = 30,
    optimizer: Literal["adamw", "sgd"] = "sgd",
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    augment: bool | str = True,
    workers: int = 2,
    every: int = 1,
    budget: float | None = 0.1,
    seed: int = 0,
) -> Recipe:
    """Train a ResNet-18 with a 3 x 3 stem on CIFAR-10, downloaded by torchvision or from `files`.

    Meant for a GPU: an epoch there takes seconds, and on two cores about half an hour.

    Args:
        dataset: any torchvision classification set by name: CIFAR10, CIFAR100, SVHN, MNIST, FashionMNIST ...
        root: where the data are, or are downloaded to.
        files: a folder of the images as files instead, `files/train/CLASS/*.jpg` and
            `files/test/CLASS/*.jpg`, shown at 32 px and held in memory; a tenth is set aside to validate on.
        network: any network by name; those that end in 3x3 have a stem for small images.
        epochs: passes over the training images.
        optimizer: sgd (with Nesterov momentum 0.9) or adamw.
        lr: the highest learning rate.
        weight_decay: of the weights.
        batch_size: images in a step.
        augment: how training images are changed: none, light, standard (or true: moved, and mirrored where
            mirrored images keep their meaning), colour, strong, mixup, cutmix, mixup_cutmix.
        workers: processes that load images.
        every: epochs from one run of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take; no limit without it.
        seed: of weights, order, augmentation and split.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    how = {"augment": augment, "batch_size": batch_size, "workers": workers, "seed": seed}
    data: ImageData
    if files is not None:
        data = FolderInMemory(files, val_share=0.1, **how)
    else:
        # a run's folder may name any place
        download = root == "datasets" or may_download()
        data = TorchvisionSet(dataset, root=root, download=download, **how)
    net = build(network, classes=len(data.classes), channels=data.channels, mean=data.mean, std=data.std)
    check_takes(net, data.channels, data.size)
    model = Classifier(
        net, classes=len(data.classes), optimizer=optimizer, lr=lr, weight_decay=weight_decay, seed=seed
    )
    return Recipe(model, data, epochs, standard_probes(every=every, budget=budget))
