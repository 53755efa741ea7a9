"""Adversarial training on CIFAR-10 within 8/255 in Linf: a PreAct ResNet-18 by Madry, TRADES or Fast."""

from typing import Any

from fulgurite.recipes import cifar10
from fulgurite.recipes.knobs import passes_on, those_of
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robust import gradient_pass_of, robust


@passes_on(robust, cifar10.recipe, radius="8/255", steps=10, network="preact_resnet18", robust_images=1000)
def recipe(*, bf16: bool = False, **knobs: Any) -> Recipe:
    """Train a PreAct ResNet-18 on CIFAR-10, downloaded by torchvision or from `files`, within 8/255.

    Meant for a GPU; not yet run in full by us. Published results with this network and PGD of 10 steps: .83
    clean and .53 under PGD at the best of 200 epochs, .46 at the last (Rice et al. 2020,
    arxiv.org/abs/2002.11569); with fast, `--epochs 15 --lr 0.2`, .83 to .86 and .46 (Wong et al. 2020,
    arxiv.org/abs/2001.03994).

    Args:
        bf16: the attack's gradient passes in bfloat16; for all the rest, --trainer.precision bf16-mixed.
        budget: the share of the training time that probes may take, except those of robustness, which always
            run; no limit without it.
        seed: of weights, order, augmentation, attacks and split.
    """
    plain = cifar10.recipe(**those_of(cifar10.recipe, knobs))
    return robust(plain, gradient_pass_of(bf16=bf16), **those_of(robust, knobs))
