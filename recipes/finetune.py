"""Fine-tuning of a pretrained network on a small set of your own images, in part or as a whole."""

from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from fulgurite.data.folder import Folder
from fulgurite.data.image_data_module import ImageData
from fulgurite.data.readable_images import OnBadImage
from fulgurite.models.dotted_path_networks import own_function
from fulgurite.models.networks import build
from fulgurite.models.strategies import Strategy
from fulgurite.recipes import run as runs
from fulgurite.recipes.fitted_head import fit_head
from fulgurite.recipes.knobs import passes_on, those_of
from fulgurite.recipes.recipe import Recipe, do_weights_follow, may_download
from fulgurite.recipes.transfer import check_knobs, seeded, transfer

NETWORK = "torchvision/resnet18"


@passes_on(transfer, epochs=20, lr=1e-3, budget=0.1)
def recipe(
    *,
    path: str,
    network: str | None = None,
    weights: str | None = None,
    backbone: str | None = None,
    fitted_head: bool = False,
    size: int = 224,
    channels: int = 3,
    val_share: float = 0.2,
    fold: int | None = None,
    folds: int = 5,
    per_class: int | None = None,
    augment: bool | str = True,
    on_bad_image: OnBadImage = "skip",
    white: int | None = None,
    loader: str | None = None,
    decoded: int | None = None,
    composite: str | None = None,
    batch_size: int = 32,
    workers: int = 2,
    score_layer: str = "",
    **knobs: Any,
) -> Recipe:
    """Fine-tune a pretrained network on a folder of images: `path/train/CLASS/*.jpg` and `path/val/...`.

    Ants against bees (PyTorch's hymenoptera_data, 244 and 153 photographs) by SqueezeNet with ImageNet's
    weights:

        fulgurite fit finetune --path hymenoptera_data --network torchvision/squeezenet1_0
            --weights FILE --strategy last --fitted_head true --lr 1e-4 --epochs 3 --augment light --every 0

    classifies 94 % (90 to 98), in less than a minute on a core; linear 93 %, layerwise 94 %.

    Args:
        path: the folder; without `train` and `val` in it, a share of each class is set aside.
        network: torchvision/resnet18 by default, or the backbone's; torchvision/NAME, timm/NAME,
            hf-hub:OWNER/NAME, small_vgg, or your own with its weights: my_package.nets.Net.
        weights: from a safetensors file, a state dict or a checkpoint of ours; the library's without it.
        backbone: or from the folder of a run: its network with its best weights.
        fitted_head: begin with a logistic regression of the training images for a head, and not with a fresh
            one; all strategies but scratch then need a lower rate, such as 1e-4.
        size: side of the square that images are cropped to.
        channels: 3, 1 for grey, or up to 13 of .npy files and TIFFs of several bands.
        val_share: the share of each class to validate on, where there is no `val`.
        fold: validate on this one of the folds, from 0, and train on the others.
        folds: into how many the images are split, with fold.
        per_class: train on this many images of each class; none may have fewer.
        augment: how training images are changed: none, light, standard (or true), colour, strong, mixup,
            cutmix, mixup_cutmix.
        on_bad_image: skip names images that cannot be read and trains on others in their place; raise ends.
        white: the value of white in images of more than 8 bits; from the files without it.
        loader: what reads a file as an array, by dotted path: my_package.files.load, see `data.arrays`.
        decoded: keep decoded images in the user's cache folder, their shorter side at most this many pixels;
            0 keeps whole ones, which take more of the disk and change nothing that is trained on.
        composite: how images of 2, 4 or more channels are shown: infrared, sentinel-2 natural, 3,2,1 ...
        batch_size: images in a step.
        workers: processes that load images.
        score_layer: where probes read class scores, by path; the output of the network without it.
        seed: of the head, order, augmentation and split.
    """
    check_knobs(**those_of(check_knobs, knobs))
    if fold is None and folds != 5:
        raise ValueError(
            f"folds={folds} without fold; say which of them validates, from 0 to {folds - 1}: --fold 0"
        )
    if fitted_head and knobs["strategy"] == "scratch":
        raise ValueError('strategy="scratch" begins with fresh weights; leave out fitted_head')
    seeded(knobs["seed"])
    own: dict[str, Any] = {
        "size": size,
        "channels": channels,
        "val_share": val_share,
        "fold": None if fold is None else (fold, folds),
        "per_class": per_class,
        "on_bad_image": on_bad_image,
        "white": white,
        "decoded": decoded,
        "loader": None if loader is None else own_function(loader, "loader", typed=may_download()),
        "batch_size": batch_size,
        "workers": workers,
        "seed": knobs["seed"],
    }
    data = Folder(path, augment=augment, **own)
    pretrained_network = _initial_network(
        data, knobs["strategy"], network=network, weights=weights, backbone=backbone
    )
    if fitted_head and not do_weights_follow():
        fit_head(pretrained_network, Folder(path, augment=False, verify=False, **own))
    return transfer(pretrained_network, data, score_layer, composite=composite, **knobs)


def _initial_network(
    data: ImageData, strategy: Strategy, *, network: str | None, weights: str | None, backbone: str | None
) -> nn.Module:
    """The network with its initial weights; weights that do not fit are logged."""
    if weights and backbone:
        raise ValueError(f"weights={weights} and backbone={backbone} are two sources of weights; choose one")
    if strategy == "scratch" and weights:
        raise ValueError(f'strategy="scratch" begins with fresh weights; leave out weights={weights}')
    source: str | Path | None = weights
    typed = may_download() and network is not None  # a name in a backbone's folder is not typed by the user
    if backbone:
        backbone_network = network_of(Path(backbone))
        if network not in (None, backbone_network):
            raise ValueError(
                f"{backbone} is a run of {backbone_network}, not of {network}; leave out network={network}"
            )
        network, source = (
            backbone_network,
            None if do_weights_follow() else runs.checkpoint(Path(backbone), "best"),
        )
    make = partial(
        build,
        network or NETWORK,
        classes=len(data.classes),
        channels=data.channels,
        typed=typed,
    )
    if strategy == "scratch":
        rank_zero_info("fresh weights" + (f"; {backbone} only names the network" if backbone else ""))
        return make(mean=data.mean, std=data.std)
    if do_weights_follow():
        return make(mean=data.mean, std=data.std)
    # weights from elsewhere expect the normalisation that they were trained with
    return make(pretrained=source is None, weights=source, fresh_head=True, say=rank_zero_info)


def network_of(folder: Path) -> str:
    """The name of the network that a run trained.

    Raises:
        ValueError: it names none, or runs name each other as their backbones.
    """
    seen = list[Path]()
    while folder.resolve() not in seen:
        seen.append(folder.resolve())
        run = runs.read(folder)
        if isinstance(name := run.knobs.get("network"), str):
            return name
        if run.recipe != "finetune" or "network" not in run.knobs:
            raise ValueError(
                f"{folder} is a run of {run.recipe!r}, which names no network; give its file as weights"
            )
        if not (earlier := run.knobs.get("backbone")):
            return NETWORK
        if not isinstance(earlier, str):
            raise ValueError(f"{folder} has {earlier!r} for its backbone; wanted the folder of a run")
        folder = Path(earlier)
    raise ValueError(
        f"{folder} has itself for a backbone, by {len(seen)} steps; give the network by its name"
    )
