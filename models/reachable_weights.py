"""Whether published weights are on this machine, or their host can be reached."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch

LOCAL = "give a file of them: --weights FILE.safetensors"
SECONDS = 5.0


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
            # certificates are left to the library, which may accept others
            answers.append(isinstance(error.reason, ssl.SSLError))
        except Exception:  # hosts and proxies may raise anything
            answers.append(False)

    # looking up a host name may take longer than the timeout
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answers == [True]


def on_hub(identifier: str, files: Sequence[str], name: str, *, fetch: bool = True) -> bool:
    """Whether one of the files was downloaded before; if not, and it is needed, the Hub must answer."""
    from huggingface_hub import constants, try_to_load_from_cache

    repository, _, revision = identifier.removeprefix("hf-hub:").partition("@")
    kept = [try_to_load_from_cache(repository, file, revision=revision or None) for file in files]
    held = any(isinstance(file, str) for file in kept)
    if fetch:
        check_reachable(name, constants.ENDPOINT, held=held)
    return held


def is_downloaded(url: str) -> bool:
    """Whether torch has fetched this file before."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name).is_file()


def check_reachable(name: str, url: str, *, held: bool) -> None:
    """Check that a file is here (`held`), or that its host answers.

    Raises:
        ValueError: it is not, and does not.
    """
    if not held and not reachable(url):
        raise ValueError(
            f"the published weights of {name} are not on this machine, and {urlparse(url).netloc} does not "
            f"answer: no network, or no proxy named; {LOCAL}"
        )
