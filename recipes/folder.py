"""Your own images, a folder for each class: any torchvision or timm network, pretrained or not."""

from typing import Literal

import lightning.pytorch as pl

from fulgurite.data.folder import Folder
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.readable_images import OnBadImage
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build, check_takes
from fulgurite.recipes.recipe import Recipe, do_weights_follow, standard_probes


def recipe(
    *,
    path: str,
    network: str = "torchvision/resnet18",
    pretrained: bool = False,
    weights: str | None = None,
    size: int = 224,
    channels: int = 3,
    val_share: float = 0.2,
    augment: bool = True,
    on_bad_image: OnBadImage = "skip",
    epochs: int = 20,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    batch_size: int = 32,
    workers: int = 2,
    every: int = 1,
    budget: float | None = 0.1,
    score_layer: str = "",
    seed: int = 0,
) -> Recipe:
    """Train on a folder of images: `path/train/CLASS/*.jpg` and `path/val/...`, or `path/CLASS/*.jpg`.

    Args:
        path: the folder; without `train` and `val` in it, a share of each class is set aside.
        network: small_vgg, all_conv, torchvision/NAME or timm/NAME.
        pretrained: start from the library's weights, which it downloads.
        weights: or from a safetensors file or a checkpoint of ours.
        size: side of the square that images are cropped to.
        channels: 3, or 1 for grey.
        val_share: the share of each class to validate on, where there is no `val`.
        augment: crop at random and mirror.
        on_bad_image: skip names images that cannot be read and trains on others in their place; raise ends.
        epochs: passes over the training images.
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: the highest learning rate.
        weight_decay: of the weights.
        batch_size: images in a step.
        workers: processes that load images.
        every: epochs from one look of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take; no limit without it.
        score_layer: where probes read class scores, by path; the answer of the network without it.
        seed: of weights, order, augmentation and split.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    data = Folder(
        path,
        size=size,
        channels=channels,
        val_share=val_share,
        augment=augment,
        on_bad_image=on_bad_image,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
    )
    return classifier(
        data,
        network=network,
        pretrained=pretrained,
        weights=weights,
        epochs=epochs,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        every=every,
        budget=budget,
        score_layer=score_layer,
        seed=seed,
    )


def classifier(
    data: ImageData,
    *,
    network: str,
    pretrained: bool,
    weights: str | None,
    epochs: int,
    optimizer: Literal["adamw", "sgd"],
    lr: float,
    weight_decay: float,
    every: int,
    budget: float | None,
    score_layer: str,
    seed: int,
) -> Recipe:
    """Train a network to tell the classes of any data apart, under the standard probes; see `recipe`."""
    if do_weights_follow():
        pretrained, weights = False, None
    # weights from elsewhere expect the normalisation that they were trained with
    own = not (pretrained or weights)
    net = build(
        network,
        classes=len(data.classes),
        channels=data.channels,
        mean=data.mean if own else None,
        std=data.std if own else None,
        pretrained=pretrained,
        weights=weights,
    )
    check_takes(net, data.channels, data.size)
    how = {"optimizer": optimizer, "lr": lr, "weight_decay": weight_decay, "seed": seed}
    model = Classifier(net, classes=len(data.classes), **how)
    return Recipe(model, data, epochs, standard_probes(every=every, budget=budget, layer=score_layer))
