"""torchvision, timm and our own networks by name, for any classes and channels, with normalisation inside."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models

from fulgurite.models.dotted_path_networks import is_dotted, made_for, own_network
from fulgurite.models.network_names import NetworkName, parts_of, timm_names, torchvision_names, unknown
from fulgurite.models.published_format import INCEPTIONS, check_hub, published_format, weights_of
from fulgurite.models.published_weights import published
from fulgurite.models.small_networks import (
    AllConv,
    PreActResNet18,
    SmallCNN,
    SmallVGG,
    StridedCNN,
    cifar_stem,
)
from fulgurite.models.weights import changes, ends, fitted, load, read, unprefixed
from fulgurite.probes.counted import counted

_OWN = {
    "small_vgg": SmallVGG,
    "all_conv": AllConv,
    "small_cnn": SmallCNN,
    "strided_cnn": StridedCNN,
    "preact_resnet18": PreActResNet18,
}
_SMALL_STEM = {"resnet18_3x3": "resnet18", "resnet34_3x3": "resnet34"}
IMAGENET = 1000
"""The number of classes of most published weights."""


def build(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    fresh_head: bool = False,
    say: Callable[[str], object] | None = None,
    typed: bool = False,
) -> nn.Module:
    """The network of this name: one of our own such as `small_vgg`, torchvision's or timm's.

    torchvision's are called `torchvision/NAME`, and `torchvision/NAME@WEIGHTS` with a member of its weight
    enum, such as `torchvision/resnet50@IMAGENET1K_V1`; timm's `timm/NAME`, and `hf-hub:OWNER/NAME` (or
    `hf_hub:`) where they are on the Hugging Face Hub. If the user has `typed` the name, a dotted path such as
    `my_package.nets.Net` too: see `own_network`.

    Weights are the published ones (`pretrained`), those of a file (`weights`, see `weights.read`), or fresh.
    For other classes, the last layer is fresh (with `fresh_head` in any case); for other channels, the first
    one is adapted. `say` gets a line that names the tensors that were not used unchanged.

    A SqueezeNet for other classes than ImageNet's has no ReLU after its logits.

    Images are normalised by `mean` and `std` where given; else as stored in the file (for our networks);
    else, with weights, as the library's network expects, averaged for one channel; else to [-1, 1].

    Raises:
        ValueError: for an unknown name, with the nearest; for weights that cannot be fetched, read or fitted.
    """
    if classes < 1 or channels < 1:
        raise ValueError(f"a network needs classes and channels, not classes={classes}, channels={channels}")
    if pretrained and weights is not None:
        raise ValueError("pretrained=True and weights=FILE are two sources of weights; choose one")
    if (mean is None) != (std is None):
        raise ValueError("mean and std go together; give both or neither")
    if mean is not None and len(mean) != channels:
        raise ValueError(f"mean and std are a number per channel: {channels}, not {len(mean)}")
    if pretrained and is_dotted(name):
        raise ValueError(
            f"{name} has no published weights; give a file of them (weights=FILE, or --weights FILE)"
        )
    network = _fresh(name, classes, channels, typed=typed, fetch=typed or pretrained)
    scale = [0.5], [0.5]
    if pretrained or weights is not None:
        state = published(name) if weights is None else unprefixed(read(weights), network, str(weights))
        if name.startswith("torchvision/"):
            state = _current(state)
        scale = _scale(name, network, state)
        state = {part: value for part, value in state.items() if not part.startswith("normalise.")}
        suited, source = fitted(state, network, fresh_head=fresh_head), str(weights or name)
        load(network, suited, source=source)
        if say is not None:
            say(f"weights of {source}: {changes(state, suited)}")
    if mean is not None and std is not None:
        return normalised(network, mean, std)
    return normalised(
        network, *(part if len(part) == channels else [fmean(part)] * channels for part in scale)
    )


def classes_and_channels(name: str, weights: str | Path | None, *, typed: bool = False) -> tuple[int, int]:
    """How many classes and image channels the network of this name has, by the weights in a file.

    Without a file, or where it is of another network, it is as published: 1000 and 3; for a user's own
    network, as it is created. `build` reports what does not fit.
    """
    own = is_dotted(name)
    classes, channels = (None, None) if own else (IMAGENET, 3)
    network = _fresh(name, classes, channels, typed=typed, fetch=typed)
    known, takes = made_for(network) if own else (IMAGENET, 3)
    known, takes = known or IMAGENET, takes or 3
    if weights is None:
        return known, takes
    state = unprefixed(read(weights), network, str(weights))
    stems, heads = ends(network)
    head, stem = (
        [state[name] for part in parts if (name := f"{part}.weight") in state and state[name].dim() > 1]
        for parts in (heads, stems)
    )
    inside = network.state_dict()
    if own:
        return len(head[0]) if head else known, stem[0].shape[1] if stem else takes
    grey = stem and 3 * stem[0].shape[1] == inside[f"{stems[0]}.weight"].shape[1]
    return len(head[0]) if head else known, 1 if grey else takes


def class_names(classes: int) -> Sequence[str]:
    """ImageNet's names where there are as many classes as it has, numbers otherwise."""
    if classes != IMAGENET:
        return [str(number) for number in range(classes)]
    return models.get_model_weights("resnet18")["DEFAULT"].meta["categories"]


def check_takes(network: nn.Module, channels: int, size: int) -> None:
    """Check that a network can take square images of this size.

    Raises:
        ValueError: it cannot; small images are often downsampled to nothing.
    """
    device = next((parameter.device for parameter in network.parameters()), None)
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, channels, size, size, device=device))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        message = next(iter(str(error).splitlines()), type(error).__name__)
        own = made_for(network)[1]
        if own not in (None, channels):
            message = f"it takes {counted(own, 'channel')}, not {channels}; --channels {own} reads them so"
        raise ValueError(
            f"{type(network).__name__} cannot take {channels} x {size} x {size}: {message}"
        ) from None
    finally:
        network.train(training)


def names() -> list[str]:
    """Every name that `build` takes; timm's also with the tags of their weights (`timm/resnet50.a1_in1k`)."""
    return [*_OWN, *_SMALL_STEM, *torchvision_names(), *timm_names()]


class Normalise(nn.Module):
    """Subtracts a mean and divides by a standard deviation, per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        if len(mean) != len(std) or min(std, default=0) <= 0:
            raise ValueError(
                f"mean and std are a number per channel, std above 0; not {list(mean)} and {list(std)}"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images in units of `std` from `mean`."""
        if images.shape[1] != len(self.mean):
            plural = "" if len(self.mean) == 1 else "s"
            raise ValueError(
                f"this network takes {len(self.mean)} channel{plural}, the images have {images.shape[1]}"
            )
        return (images - self.mean) / self.std


def normalised(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """The same network, for images in [0, 1]: a `normalise` runs first, and no other layer's path changes.

    Changes the network that it is given. Only calls of the whole network are normalised, not timm's
    `forward_features`.
    """
    if hasattr(network, "normalise"):
        raise ValueError(
            f"this {type(network).__name__} already has a `normalise`; a network is normalised once"
        )
    if isinstance(network, nn.Sequential):
        raise ValueError(
            "an nn.Sequential runs all its parts, `normalise` too; put it first: "
            "nn.Sequential(fulgurite.Normalise(mean, std), network)"
        )
    network.normalise = Normalise(mean, std)
    network.register_forward_pre_hook(_normalise_first)
    return network


def _normalise_first(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *rest = inputs
    return (network.get_submodule("normalise")(images), *rest)


def _fresh(
    name: str, classes: int | None, channels: int | None, *, typed: bool = False, fetch: bool = False
) -> nn.Module:
    if is_dotted(name):
        return own_network(name, classes, channels, typed=typed)
    classes, channels = classes or IMAGENET, channels or 3
    if name in _OWN:
        return _OWN[name](classes, channels)
    if name in _SMALL_STEM:
        resnet = _torchvision(NetworkName("torchvision", _SMALL_STEM[name]), classes, channels)
        assert isinstance(resnet, models.ResNet)
        return cifar_stem(resnet)
    parts = parts_of(name)
    if parts.library == "torchvision" and f"torchvision/{parts.short}" in torchvision_names():
        return _torchvision(parts, classes, channels)
    if parts.on_hub:
        check_hub(parts.short, fetch=fetch)
    if parts.on_hub or (parts.library == "timm" and name in timm_names()):
        import timm

        return timm.create_model(parts.short, num_classes=classes, in_chans=channels)
    raise ValueError(unknown(name, [*_OWN, *_SMALL_STEM]))


def _torchvision(name: NetworkName, classes: int, channels: int) -> nn.Module:
    how: dict[str, Any] = {"aux_logits": False, "init_weights": False} if name.short in INCEPTIONS else {}
    if name.short.startswith("vit_") and name.weights:
        # the number of position embeddings depends on the image size of the weights
        how["image_size"] = weights_of(name).meta["min_size"][0]
    network = models.get_model(name.short, weights=None, num_classes=classes, **how)
    if channels != 3:
        (stem, *_), _ = ends(network)
        first = network.get_submodule(stem)
        assert isinstance(first, nn.Conv2d)
        # drawn by the library, so that its initialisation is kept
        first.weight = nn.Parameter(first.weight.detach()[:, [i % 3 for i in range(channels)]])
        first.in_channels = channels
    if isinstance(network, models.SqueezeNet) and classes != IMAGENET:
        # the library's ReLU after the logits: if all fresh logits fell below zero, they would never learn
        network.classifier[2] = nn.Identity()
    return network


def _current(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's older files hold auxiliary heads, and names that torch no longer allows (DenseNet's)."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)", r"\1", name): value
        for name, value in state.items()
        if not name.startswith(("aux1.", "aux2.", "AuxLogits."))
    }


def _scale(
    name: str, network: nn.Module, state: Mapping[str, Tensor]
) -> tuple[Sequence[float], Sequence[float]]:
    if "normalise.mean" in state and "normalise.std" in state:
        return state["normalise.mean"].flatten().tolist(), state["normalise.std"].flatten().tolist()
    if getattr(network, "pretrained_cfg", None):
        from timm.data.config import resolve_model_data_config

        looks = resolve_model_data_config(network)
        return looks["mean"], looks["std"]
    looks = published_format(name)
    return looks.mean, looks.std
