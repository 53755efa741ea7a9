"""CIFAR-10 that withstands shifts of 8/255 in every pixel: a PreAct ResNet-18 by Madry, TRADES or Fast."""

from typing import Literal

from fulgurite.recipes import cifar10
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robust import Answer, Method, Norm, robust, view_of


def recipe(
    *,
    method: Method = "madry",
    threat: Norm = "linf",
    radius: float | str = "8/255",
    steps: int = 10,
    beta: float = 6.0,
    warmup: float = 0.0,
    overfitting: Answer = "warn",
    patience: int | None = None,
    ensemble_every: int | None = None,
    bf16: bool = False,
    dataset: str = "CIFAR10",
    root: str = "datasets",
    network: str = "preact_resnet18",
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
    """Train a PreAct ResNet-18 on CIFAR-10, which torchvision downloads into `root`, within 8/255.

    Meant for a GPU; not yet run to its end by us. What others reached with this network and PGD of 10 steps:
    .83 clean and .53 under PGD at the best of 200 epochs, .46 at the last (Rice et al. 2020,
    arxiv.org/abs/2002.11569); with fast, `--epochs 15 --lr 0.2`, .83 to .86 and .46 (Wong et al. 2020,
    arxiv.org/abs/2001.03994).

    Args:
        method: madry trains on the worst images, trades on clean ones and on how far answers move, fast on
            images after one step, plain on clean ones.
        threat: what is bounded: the largest shift of a pixel (linf), or the length of all together (l2, l1).
        radius: by how much; `robust accuracy` is measured within it, too: by PGD of 10 steps on validation
            images, of 20 on test images (under l1, APGD).
        steps: of PGD, in madry and trades.
        beta: what robustness weighs in trades.
        warmup: the share of the training over which the radius grows from 0.
        overfitting: what follows on catastrophic overfitting of fast: warn, stop, or pgd to go on by madry.
        patience: epochs without a better robust validation accuracy after which training stops.
        ensemble_every: looks of Robustness from one with AutoAttack's ensemble to the next; none without it.
        bf16: the attack's gradient passes in bfloat16; for all the rest, --trainer.precision bf16-mixed.
        dataset: any torchvision classification set by name.
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
        budget: the share of the training time that probes may take, but for those of robustness, which always
            look; no limit without it.
        seed: of weights, order, augmentation, attacks and split.
    """
    plain = cifar10.recipe(
        dataset=dataset,
        root=root,
        network=network,
        epochs=epochs,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        batch_size=batch_size,
        augment=augment,
        workers=workers,
        every=every,
        budget=budget,
        seed=seed,
    )
    return robust(
        plain,
        method=method,
        threat=threat,
        radius=radius,
        steps=steps,
        beta=beta,
        warmup=warmup,
        overfitting=overfitting,
        patience=patience,
        ensemble_every=ensemble_every,
        view=view_of(bf16=bf16),
    )
