"""Your own images, a folder for each class: any torchvision or timm network, pretrained or not."""

from collections.abc import Callable
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from fulgurite.data.folder import Folder
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.readable_images import OnBadImage
from fulgurite.models.classifier import Classifier
from fulgurite.models.dotted_path_networks import is_dotted, own_function
from fulgurite.models.networks import IMAGENET, build, check_takes, classes_and_channels
from fulgurite.recipes.fitted_head import fit_head
from fulgurite.recipes.recipe import Recipe, do_weights_follow, may_download, standard_probes

COARSE, FINE = 1e-3, 1e-4  # learning rates of fresh weights, and of pretrained ones


def recipe(
    *,
    path: str,
    network: str = "torchvision/resnet18",
    pretrained: bool = False,
    weights: str | None = None,
    size: int = 224,
    channels: int = 3,
    val_share: float = 0.2,
    augment: bool | str = True,
    on_bad_image: OnBadImage = "skip",
    white: int | None = None,
    loader: str | None = None,
    decoded: int | None = None,
    composite: str | None = None,
    epochs: int = 20,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    lr: float | None = None,
    fitted_head: bool | None = None,
    weight_decay: float = 0.01,
    batch_size: int = 32,
    workers: int = 2,
    every: int = 1,
    budget: float | None = 0.1,
    score_layer: str = "",
    seed: int = 0,
) -> Recipe:
    """Train on a folder of images: `path/train/CLASS/*.jpg` and `path/val/...`, or `path/CLASS/*.jpg`.

    With pretrained weights (`--pretrained true` or `--weights FILE`), the whole network learns at a tenth of
    the usual rate, from a last layer that begins as a logistic regression of the training images. With less
    than some hundred images of each class, `fit finetune --strategy last` is the better command: it freezes
    the early layers, takes a fraction of the time, and offers other strategies by one option.

    Args:
        path: the folder; without `train` and `val` in it, a share of each class is set aside.
        network: small_vgg, all_conv, torchvision/NAME, timm/NAME or hf-hub:OWNER/NAME,
            or your own: my_package.nets.Net.
        pretrained: start from the library's weights, which it downloads.
        weights: or from a safetensors file or a checkpoint of ours.
        size: side of the square that images are cropped to.
        channels: 3, 1 for grey, or up to 13 of .npy files and TIFFs of several bands.
        val_share: the share of each class to validate on, where there is no `val`.
        augment: how training images are changed: none, light, standard (or true), colour, strong, mixup,
            cutmix, mixup_cutmix.
        on_bad_image: skip names images that cannot be read and trains on others in their place; raise ends.
        white: the value of white in images of more than 8 bits; from the files without it.
        loader: what reads a file as an array, by dotted path: my_package.files.load, see `data.arrays`.
        decoded: keep decoded images in the user's cache folder, their shorter side at most this many pixels;
            0 keeps whole ones, which take more of the disk and change nothing that is trained on.
        composite: how images of 2, 4 or more channels are shown: infrared, sentinel-2 natural, 3,2,1 ...
        epochs: passes over the training images.
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        lr: the highest learning rate; without it 1e-3 for fresh weights, and 1e-4 for others.
        fitted_head: begin with a logistic regression of the training images for a last layer; without it,
            where the weights are not fresh and the last layer would be.
        weight_decay: of the weights.
        batch_size: images in a step.
        workers: processes that load images.
        every: epochs from one run of the probes to the next; 0 for no probes.
        budget: the share of the training time that probes may take; no limit without it.
        score_layer: where probes read class scores, by path; the output of the network without it.
        seed: of weights, order, augmentation and split.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    own: dict[str, Any] = {
        "size": size,
        "channels": channels,
        "val_share": val_share,
        "on_bad_image": on_bad_image,
        "white": white,
        "decoded": decoded,
        "loader": None if loader is None else own_function(loader, "loader", typed=may_download()),
        "batch_size": batch_size,
        "workers": workers,
        "seed": seed,
    }
    if fitted_head and not (pretrained or weights):
        raise ValueError("fitted_head=True is for pretrained weights; give pretrained=True or weights=FILE")
    return classifier(
        Folder(path, augment=augment, **own),
        whole=None if fitted_head is False else lambda: Folder(path, augment=False, verify=False, **own),
        fitted_head=fitted_head,
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
        composite=composite,
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
    lr: float | None,
    whole: Callable[[], ImageData] | None = None,
    fitted_head: bool | None = None,
    weight_decay: float,
    every: int,
    budget: float | None,
    score_layer: str,
    composite: str | None = None,
    seed: int,
) -> Recipe:
    """Train a network to classify any data, under the standard probes; see `recipe`.

    `whole` gives the training images as they are, for a fitted head.
    """
    lr = lr if lr is not None else FINE if pretrained or weights else COARSE
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
        typed=may_download(),
    )
    check_takes(net, data.channels, data.size)
    known = IMAGENET
    if is_dotted(network):  # the classes of its last layer are unknown
        known = -1 if fitted_head else len(data.classes)
    elif weights is not None and not own:
        known = classes_and_channels(network, weights)[0]
    if whole is not None and not own and known != len(data.classes):
        _fit_head(net, whole(), wanted=fitted_head is True)
    how = {"optimizer": optimizer, "lr": lr, "weight_decay": weight_decay, "seed": seed}
    model = Classifier(net, classes=len(data.classes), **how)
    return Recipe(
        model,
        data,
        epochs,
        standard_probes(every=every, budget=budget, layer=score_layer, composite=composite),
    )


def _fit_head(network: nn.Module, data: ImageData, *, wanted: bool) -> None:
    """Begin with a fitted last layer; if it cannot be fitted, log that, or raise if it was asked for."""
    try:
        fit_head(network, data)
    except ValueError as error:
        if wanted:
            raise
        rank_zero_info(f"the last layer begins with fresh weights: {error}")
