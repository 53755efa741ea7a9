"""Downloads of published weights by torchvision and timm, with an early check of the connection."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch
from torch import Tensor
from torchvision import models

LOCAL = "give a file of them: --weights FILE.safetensors"
SECONDS = 5.0
_TIMMS = ("model.safetensors", "pytorch_model.bin")  # what timm looks for


def published(name: str) -> dict[str, Tensor]:
    """The state dict that a library publishes for a network, `torchvision/NAME` or `timm/NAME`.

    Raises:
        ValueError: there is none, or it is not on this machine and cannot be fetched.
    """
    library, _, short = name.rpartition("/")
    if not library:
        raise ValueError(f"nobody publishes weights for {name}; {LOCAL}")
    try:
        if library == "torchvision":
            url = models.get_model_weights(short)["DEFAULT"].url
            _check_reachable(name, url, held=_downloaded(url))
            return models.get_model(short, weights="DEFAULT").state_dict()
        import timm

        _check_timms(name, short)
        return timm.create_model(short, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        reason, *_ = str(error).split("\n")
        raise ValueError(
            f"the published weights of {name} could not be fetched ({reason}); {LOCAL}"
        ) from error


def reachable(url: str, *, seconds: float = SECONDS) -> bool:
    """Whether a host answers at all, whatever it says; through a proxy, if the environment names one."""
    answers = list[bool]()

    def ask() -> None:
        try:
            with urlopen(Request(url, method="HEAD"), timeout=seconds):
                answers.append(True)
        except HTTPError:
            answers.append(True)
        except URLError as error:
            # a certificate is the library's business, which may know others
            answers.append(isinstance(error.reason, ssl.SSLError))
        except Exception:  # whatever a strange host or proxy says
            answers.append(False)

    # a name may take longer to look up than any timeout says
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answers == [True]


def _check_timms(name: str, short: str) -> None:
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    config = timm.get_pretrained_cfg(short)
    if config is None or config.file:
        return
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        files: Sequence[str] = [config.hf_hub_filename] if config.hf_hub_filename else _TIMMS
        kept = [try_to_load_from_cache(repository, file, revision=revision or None) for file in files]
        _check_reachable(name, constants.ENDPOINT, held=any(isinstance(file, str) for file in kept))
    elif config.url:
        url = config.url if isinstance(config.url, str) else config.url[0]  # the other is a file name
        _check_reachable(name, url, held=_downloaded(url))


def _downloaded(url: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name).is_file()


def _check_reachable(name: str, url: str, *, held: bool) -> None:
    if not held and not reachable(url):
        raise ValueError(
            f"the published weights of {name} are not on this machine, and {urlparse(url).netloc} does not "
            f"answer: no network, or no proxy named; {LOCAL}"
        )
