"""MNIST that withstands shifts of 0.3 in every pixel: min-max training in minutes on two cores."""

from fulgurite.recipes import cifar10
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robust import Answer, Method, Norm, robust, view_of


def recipe(
    *,
    method: Method = "madry",
    threat: Norm = "linf",
    radius: float | str = 0.3,
    steps: int = 7,
    beta: float = 6.0,
    warmup: float = 0.4,
    overfitting: Answer = "warn",
    patience: int | None = None,
    ensemble_every: int | None = None,
    bf16: bool = False,
    root: str = "datasets",
    network: str = "strided_cnn",
    epochs: int = 20,
    lr: float = 2e-3,
    weight_decay: float = 0.01,
    batch_size: int = 128,
    workers: int = 0,
    every: int = 1,
    budget: float | None = 0.05,
    seed: int = 0,
) -> Recipe:
    """Train a CNN with strides on MNIST, which torchvision downloads into `root`, within a radius of 0.3.

    `train.py fit robust_mnist`: about 43 CPU seconds an epoch, a quarter of an hour on one core; test
    accuracy .989, and .938 under PGD-40 (10 000 images). With `--epochs 5`, .982 and .890.

    Args:
        method: madry, trades, fast or plain, as for robust_digits.
        threat: linf, l2 or l1.
        radius: how far an image may be moved; `robust accuracy` is measured within it, too: by PGD of 10
            steps on validation images, of 20 on test images (under l1, APGD).
        steps: of PGD, in madry and trades.
        beta: what robustness weighs in trades.
        warmup: the share of the training over which the radius grows from 0; without it, the network is
            likely to answer the same to every image for good.
        overfitting: what follows on catastrophic overfitting of fast: warn, stop or pgd.
        patience: epochs without a better robust validation accuracy after which training stops.
        ensemble_every: looks of Robustness from one with AutoAttack's ensemble to the next; none without it.
        bf16: the attack's gradient passes in bfloat16, faster where the machine has it.
        root: where the data lie, or go.
        network: strided_cnn, or any other by name.
        epochs: passes over the training images.
        lr: the highest learning rate.
        weight_decay: of the weights.
        batch_size: images in a step.
        workers: processes that load images.
        every: epochs from one look of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take, but for those of robustness, which always
            look; no limit without it.
        seed: of weights, order, attacks and split.
    """
    plain = cifar10.recipe(
        dataset="MNIST",
        root=root,
        network=network,
        epochs=epochs,
        optimizer="adamw",
        lr=lr,
        weight_decay=weight_decay,
        batch_size=batch_size,
        augment=False,
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
