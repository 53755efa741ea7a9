"""Your own images, attacked while a pretrained network is tuned to them: robust fine-tuning."""

from typing import Literal

from fulgurite.recipes import folder
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.robust import Answer, Method, Norm, robust, view_of


def recipe(
    *,
    path: str,
    method: Method = "madry",
    threat: Norm = "linf",
    radius: float | str = "1/255",
    steps: int = 3,
    beta: float = 6.0,
    warmup: float = 0.5,
    overfitting: Answer = "warn",
    patience: int | None = None,
    ensemble_every: int | None = None,
    bf16: bool = False,
    network: str = "torchvision/resnet18",
    pretrained: bool = False,
    weights: str | None = None,
    size: int = 224,
    channels: int = 3,
    val_share: float = 0.2,
    augment: bool = True,
    epochs: int = 20,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    lr: float = 3e-4,
    weight_decay: float = 0.01,
    batch_size: int = 32,
    workers: int = 2,
    every: int = 1,
    budget: float | None = 0.1,
    score_layer: str = "",
    seed: int = 0,
) -> Recipe:
    """Fine-tune on a folder of images, `path/train/CLASS/*.jpg` and `path/val/...`, within a radius of 1/255.

    An attack of so many steps makes an epoch as many times longer; robustness costs accuracy, more so where
    images are few. Ants and bees (244 photographs to train on) at 128 px, a pretrained SqueezeNet: on the 153
    others plain reaches .804 and .007 under PGD-20 in eight epochs, madry .680 and .373 in sixteen, about
    twelve minutes on one core. Within 2/255, at a third of the learning rate and without warm-up, eight
    epochs came to nothing: .569 and .000. Where the loss sits at ln(classes), lower the radius.

    Args:
        path: the folder; without `train` and `val` in it, a share of each class is set aside.
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
        network: small_vgg, all_conv, torchvision/NAME or timm/NAME.
        pretrained: start from the library's weights, which it downloads.
        weights: or from a safetensors file or a checkpoint of ours.
        size: side of the square that images are cropped to.
        channels: 3, or 1 for grey.
        val_share: the share of each class to validate on, where there is no `val`.
        augment: crop at random and mirror.
        epochs: passes over the training images.
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: the highest learning rate.
        weight_decay: of the weights.
        batch_size: images in a step.
        workers: processes that load images.
        every: epochs from one look of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take, but for those of robustness, which always
            look; no limit without it.
        score_layer: where probes read class scores, by path; the answer of the network without it.
        seed: of weights, order, augmentation, attacks and split.
    """
    plain = folder.recipe(
        path=path,
        network=network,
        pretrained=pretrained,
        weights=weights,
        size=size,
        channels=channels,
        val_share=val_share,
        augment=augment,
        epochs=epochs,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        batch_size=batch_size,
        workers=workers,
        every=every,
        budget=budget,
        score_layer=score_layer,
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
        layer=score_layer,
    )
