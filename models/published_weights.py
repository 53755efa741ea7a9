"""Downloads of published weights by torchvision and timm, with an early check of the connection."""

from collections.abc import Sequence

from torch import Tensor
from torchvision import models

from fulgurite.models.network_names import HUB, parts_of
from fulgurite.models.published_format import check_hub, weights_of
from fulgurite.models.reachable_weights import LOCAL, check_reachable, is_downloaded, on_hub

_TIMMS = ("model.safetensors", "pytorch_model.bin")  # the file name that timm expects


def published(name: str) -> dict[str, Tensor]:
    """The state dict that a library publishes for a network, by the name that `networks.build` takes.

    Raises:
        ValueError: there is none, or it is not on this machine and cannot be fetched.
    """
    parts = parts_of(name)
    if not parts.library:
        raise ValueError(f"nobody publishes weights for {name}; {LOCAL}")
    try:
        if parts.library == "torchvision":
            weights = weights_of(parts)
            check_reachable(name, weights.url, held=is_downloaded(weights.url))
            return models.get_model(parts.short, weights=weights).state_dict()
        import timm

        _check_timms(name, parts.short)
        return timm.create_model(parts.short, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        reason, *_ = str(error).split("\n")
        raise ValueError(
            f"the published weights of {name} could not be fetched ({reason}); {LOCAL}"
        ) from error


def _check_timms(name: str, short: str) -> None:
    import timm

    if short.startswith(HUB):
        check_hub(short)
        on_hub(short.removeprefix(HUB), _TIMMS, name)
        return
    config = timm.get_pretrained_cfg(short)
    if config is None or config.file:
        return
    if config.hf_hub_id:
        files: Sequence[str] = [config.hf_hub_filename] if config.hf_hub_filename else _TIMMS
        on_hub(config.hf_hub_id, files, name)
    elif config.url:
        url = config.url if isinstance(config.url, str) else config.url[0]  # the other is a file name
        check_reachable(name, url, held=is_downloaded(url))
