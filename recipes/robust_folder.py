"""Robust fine-tuning: adversarial training of a pretrained network on your own images."""

from typing import Any

from fulgurite.recipes import folder
from fulgurite.recipes.knobs import passes_on, those_of
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robust import gradient_pass_of, robust


@passes_on(robust, folder.recipe, without=["fitted_head"], radius="1/255", steps=3, warmup=0.5, lr=3e-4)
def recipe(*, bf16: bool = False, **knobs: Any) -> Recipe:
    """Fine-tune on a folder of images, `path/train/CLASS/*.jpg` and `path/val/...`, within a radius of 1/255.

    An attack of this many steps makes an epoch as many times longer; robustness costs accuracy, more so where
    images are few. Ants and bees (244 photographs to train on) at 128 px, a pretrained SqueezeNet: on the 153
    others plain reaches .804 and .007 under PGD-20 in eight epochs, madry .680 and .373 in sixteen, about
    twelve minutes on one core. Within 2/255, at a third of the learning rate and without warm-up, eight
    epochs learnt nothing: .569 and .000. Where the loss stays at ln(classes), lower the radius.

    Args:
        bf16: the attack's gradient passes in bfloat16; for all the rest, --trainer.precision bf16-mixed.
        budget: the share of the training time that probes may take, except those of robustness, which always
            run; no limit without it.
        seed: of weights, order, augmentation, attacks and split.
    """
    plain = folder.recipe(fitted_head=False, **those_of(folder.recipe, knobs))
    return robust(plain, gradient_pass_of(bf16=bf16), knobs["score_layer"], **those_of(robust, knobs))
