"""Accuracy of a linear classifier on each stage's features, with no training."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.data.digits import Digits
from fulgurite.data.folder import Folder
from fulgurite.data.image_data_module import ImageData
from fulgurite.models.networks import build, check_takes
from fulgurite.models.weights import read as read_weights
from fulgurite.probes.record import layer_of, record
from fulgurite.probes.representation.fingerprint import weights_hash
from fulgurite.probes.representation.linear import Head, ridge
from fulgurite.probes.representation.logistic import STRICT, logistic
from fulgurite.probes.representation.stages import Features, features, gridded, stages
from fulgurite.recipes import plain_values
from fulgurite.recipes.analysis import Analysis, Findings
from fulgurite.recipes.run import Run
from fulgurite.recipes.run import knobs as run_knobs
from fulgurite.recipes.stages_report import Stage, artifacts, as_json, text

FITS: Mapping[str, Callable[..., Head]] = {"logistic": partial(logistic, penalties=STRICT), "ridge": ridge}
FRESH = "fresh weights"
TAKEN = ("size", "channels", "framing", "mean", "std")


def recipe(
    *,
    path: str | None = None,
    network: str = "small_vgg",
    pretrained: bool = False,
    weights: str | None = None,
    layers: list[str] | None = None,
    classifier: Literal["logistic", "ridge"] = "logistic",
    fresh: bool = True,
    grid: int = 1,
    size: int | None = None,
    channels: int = 3,
    val_share: float = 0.2,
    per_class: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    cache: str | None = "runs/features",
    seed: int = 0,
) -> Analysis:
    """Linear classifiers of every stage: fitted to the training images, scored on the validation images.

    Ants against bees (PyTorch's hymenoptera_data, 244 and 153 photographs) by SqueezeNet with ImageNet's
    weights, in 20 s on two cores, 10 s the second time:

        fulgurite fit stages --path hymenoptera_data --network torchvision/squeezenet1_0
            --weights FILE --size 128

    gives an accuracy of 71.9 % after the first stage, then 77.1, 84.3 and 90.2 % (95 % interval 84.5 to
    94.0); with fresh weights 69 to 72 % after each. Next to the table, the run's folder gets `stages.json`,
    the curve in `pictures/stages.png`, and the classifiers in `stages.safetensors`. Without a path, the
    digits, by small_vgg with fresh weights: 91, 94, 98 and 99 %.

    Args:
        path: a folder of images as for `folder`; without it, scikit-learn's digits.
        network: small_vgg, torchvision/NAME, timm/NAME, hf-hub:OWNER/NAME ...
        pretrained: with the library's weights, which it downloads.
        weights: or those of a safetensors file or a checkpoint of ours.
        layers: which to look at, by path, with commas; the network's stages without it.
        classifier: logistic regression, its penalty chosen on every fifth training image; or ridge, quicker.
        fresh: also evaluate the same network with fresh weights, as a baseline.
        grid: average maps over this many rows and columns of cells; over all of the map with 1.
        size: side of the square that images are cropped to; 224, for the digits 32.
        channels: 3, or 1 for grey.
        val_share: the share of each class to validate on, where there is no `val`.
        per_class: fit to this many images of each class; none may have fewer.
        batch_size: images in a pass.
        workers: processes that load images.
        cache: a folder for features, so that a repeated run needs no forward pass; none without it.
        seed: of fresh weights and split.
    """
    pl.seed_everything(seed, workers=True, verbose=False)
    own = {"per_class": per_class, "batch_size": batch_size, "workers": workers, "seed": seed}
    data = (
        Digits(size=size or 32, channels=1, shift=0, noise=0, **own)
        if path is None
        else Folder(
            path,
            size=size or 224,
            channels=channels,
            val_share=val_share,
            augment=False,
            on_bad_image="raise",
            **own,
        )
    )
    known = pretrained or weights is not None
    scale: dict[str, Any] = {"mean": data.mean, "std": data.std}
    shape: dict[str, Any] = {"classes": len(data.classes), "channels": data.channels}
    networks = {FRESH: build(network, **shape, **scale)} if fresh or not known else {}
    if known:
        networks["published weights" if weights is None else "given weights"] = build(
            network, **shape, pretrained=pretrained, weights=weights
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for each in networks.values():
        check_takes(each.to(device), data.channels, data.size)
        for layer in layers or ():
            layer_of(each, layer)
    features_of = partial(
        features, layers=layers, grid=grid, cache=Path(cache) if cache else None, progress="features"
    )
    takes = {"classes": list(data.classes), **{name: getattr(data, name) for name in TAKEN}}
    return Analysis("stages", lambda: found(data, networks, features_of, FITS[classifier]), takes)


class StageClassifier(nn.Module):
    """A network up to a stage, and the linear classifier that was fitted to that stage's output.

    It is `whole` if that stage is the network's last.
    """

    def __init__(self, network: nn.Module, stage: str, head: nn.Linear, *, grid: int, whole: bool):
        super().__init__()
        self.network, self.stage, self.grid, self.head = network, stage, grid, head
        self.whole = whole

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """A score for each class."""
        with record(self.network, [self.stage]) as outputs:
            self.network(images)
            return self.head(gridded(outputs[self.stage], self.grid))


def best_of(folder: Path, run: Run) -> StageClassifier:
    """The best stage's classifier of a finished run, on its network, which is built as it was then.

    Raises:
        ValueError: the run has no results, or its network's weights are missing or have changed.
    """
    if not run.images or not (folder / "stages.safetensors").is_file():
        raise ValueError(f"{folder} holds no classifiers of stages to go by; fit them again")
    saved, knobs = plain_values.read_json(folder / "stages.json"), run_knobs(recipe, run)
    pl.seed_everything(knobs["seed"], workers=True, verbose=False)
    known = knobs["pretrained"] or knobs["weights"] is not None
    usual = {"pretrained": knobs["pretrained"], "weights": knobs["weights"]}
    scale = {name: run.images[name] for name in ("mean", "std")}
    network = build(
        knobs["network"],
        classes=len(run.images["classes"]),
        channels=run.images["channels"],
        **(usual if known else scale),
    )
    if not isinstance(saved, dict) or saved.get("weights", weights_hash(network)) != weights_hash(network):
        raise ValueError(
            f"{knobs['weights'] or knobs['network']} has other weights now than when {folder} was made, and "
            "its classifiers go with those; fit them again"
        )
    side, state = run.images["size"], read_weights(folder / "stages.safetensors")
    ends = stages(network, torch.zeros(1, run.images["channels"], side, side))
    try:
        stage = saved["best"]["stage"]
        *_, stages_of_network = saved["networks"].values()
        head = Head(
            state[f"{stage}.weight"], state[f"{stage}.bias"], float(stages_of_network[stage]["penalty"])
        ).layer()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        lines = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder / 'stages.json'} and its classifiers are damaged: {lines}") from None
    layer_of(network, stage)
    return StageClassifier(network, stage, head, grid=knobs["grid"], whole=stage == ends[-1])


def found(
    data: ImageData,
    networks: Mapping[str, nn.Module],
    features_of: Callable[[nn.Module, Any], Features],
    fit: Callable[..., Head],
) -> Findings:
    """All stages of all networks; the last network is the one of the run."""
    data.setup()
    networks_stages: dict[str, dict[str, Stage]] = {}
    for name, network in networks.items():
        train, val = (features_of(network, part) for part in (data.train_dataloader(), data.val_dataloader()))
        heads = {layer: fit(values, train.labels) for layer, values in train.of.items()}
        networks_stages[name] = {
            layer: Stage(head, head.score(val.of[layer], val.labels)) for layer, head in heads.items()
        }
    counts = {
        "train": len(data.train),
        "val": len(data.val),
        "largest": int(data.val.labels.bincount().max()),
    }
    of_last = networks_stages[list(networks_stages)[-1]]
    weights = {
        f"{layer}.{name}": getattr(stage.head, name).float()
        for layer, stage in of_last.items()
        for name in ("weight", "bias")
    }
    *_, network = networks.values()
    lines = {**as_json(networks_stages, data, counts), "weights": weights_hash(network)}
    return Findings(
        text(networks_stages, counts),
        lines,
        artifacts(networks_stages, counts, chance=1 / max(2, len(data.classes))),
        weights,
    )
