"""The input format and classes of published weights: size, crop, normalisation, class names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchvision import models

from fulgurite.models.dotted_path_networks import is_dotted
from fulgurite.models.network_names import HUB, NetworkName, parts_of, torchvision_names
from fulgurite.models.reachable_weights import on_hub

INCEPTIONS = ("googlenet", "inception_v3")
"""The two that torchvision took over from TensorFlow: auxiliary heads, and images in [-1, 1]."""


@dataclass(frozen=True)
class PublishedFormat:
    """The input format and the classes of published weights.

    Args:
        size: side of the square images.
        margin: the short side is resized to this many times `size` before the centre crop.
        mean: of each channel, for images in [0, 1].
        std: likewise.
        classes: of the last layer; 1000 if it has none.
        names: of the classes, if they are known.
    """

    size: int
    margin: float
    mean: Sequence[float]
    std: Sequence[float]
    classes: int
    names: Sequence[str] | None = None

    @property
    def channels(self) -> int:
        """Of the images."""
        return len(self.mean)


OWN = PublishedFormat(32, 256 / 224, (0.5,) * 3, (0.5,) * 3, 1000)
"""Of our own networks: small images, and as many classes as ImageNet has."""
BARE = PublishedFormat(32, 1.0, (0.0,) * 3, (1.0,) * 3, 1000)
"""For networks by dotted path, whose format is unknown: images in [0, 1], unchanged."""


def published_format(name: str) -> PublishedFormat:
    """From `transforms()` of torchvision's weights, or timm's `resolve_model_data_config`.

    Of our own networks it is `OWN`, of those by dotted path `BARE`.

    Of a network on the Hugging Face Hub the configuration is downloaded, or read from an earlier download.

    Raises:
        ValueError: the library has no weights of this name, or they cannot be reached.
    """
    if is_dotted(name):
        return BARE
    parts = parts_of(name)
    if parts.library == "torchvision" and f"torchvision/{parts.short}" in torchvision_names():
        return _torchvisions(parts)
    if parts.library == "timm":
        return _timms(parts)
    return OWN


def weights_of(parts: NetworkName) -> models.WeightsEnum:
    """Torchvision's weights: those that are named, or the default."""
    return models.get_model_weights(parts.short)[parts.weights or "DEFAULT"]


def check_hub(short: str, *, fetch: bool = True) -> Mapping[str, Any]:
    """The configuration of a timm network on the Hugging Face Hub, which is here or is fetched.

    Raises:
        ValueError: it is neither, or is none of timm's; or it is not here, and nothing may be fetched.
    """
    held = on_hub(short, ["config.json"], short, fetch=fetch)
    if not (held or fetch):
        raise ValueError(
            f"the configuration of {short} is not on this machine; fetch it by a command that names the "
            f"network, such as fulgurite table --network {short}"
        )
    return _hub_config(short)


def _torchvisions(parts: NetworkName) -> PublishedFormat:
    weights = weights_of(parts)
    looks = weights.transforms()
    (size, *_), (short_side, *_) = looks.crop_size, looks.resize_size
    # torchvision's own Inceptions turn ImageNet's normalisation back; we leave both out
    mean, std = ((0.5,) * 3, (0.5,) * 3) if parts.short in INCEPTIONS else (looks.mean, looks.std)
    names = weights.meta["categories"]
    return PublishedFormat(size, short_side / size, mean, std, len(names), names)


def _timms(parts: NetworkName) -> PublishedFormat:
    import timm
    from timm.data.config import resolve_data_config

    if parts.on_hub:
        config = check_hub(parts.short)
    else:
        known = timm.get_pretrained_cfg(parts.short)
        config = {} if known is None else known.to_dict()
    looks = resolve_data_config(pretrained_cfg=config or {"mean": None})
    classes, names = config.get("num_classes") or 1000, config.get("label_names")
    # torchvision and timm agree on the order of ImageNet's classes
    return PublishedFormat(
        looks["input_size"][-1],
        1 / looks["crop_pct"],
        looks["mean"],
        looks["std"],
        classes,
        list(names) if names and len(names) == classes else None,
    )


def _hub_config(short: str) -> Mapping[str, Any]:
    from timm.models import is_model, load_model_config_from_hf

    repository = short.removeprefix(HUB)
    try:
        config, architecture, _ = load_model_config_from_hf(repository)
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{short} has no configuration of timm's that can be read: {reason}") from None
    if not is_model(architecture):
        raise ValueError(f"{short} is of the architecture {architecture!r}, which this timm does not know")
    return config
