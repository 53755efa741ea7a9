"""Names of networks: our own, torchvision's with a weight enum, timm's, and those on the Hugging Face Hub."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from torchvision import models

HUB = "hf-hub:"
"""How timm marks the names of networks on the Hugging Face Hub."""
KINDS = (
    "torchvision/NAME",
    "torchvision/NAME@WEIGHTS",
    "timm/NAME",
    "hf-hub:OWNER/NAME",
)
"""The names that are not ours, as a message lists them."""
FORMS = (
    "names of networks are torchvision/NAME (torchvision/resnet18), torchvision/NAME@WEIGHTS, timm/NAME, "
    "hf-hub:OWNER/NAME, and my_package.nets.Net for a class of your own"
)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


class NetworkName(NamedTuple):
    """A name in its parts.

    Args:
        library: `torchvision`, `timm`, or nothing for our own.
        short: the library's own name; `hf-hub:OWNER/NAME[@REVISION]` for timm's networks on the Hub.
        weights: the member of torchvision's enum, such as `IMAGENET1K_V2`; nothing for the default.
    """

    library: str
    short: str
    weights: str = ""

    @property
    def on_hub(self) -> bool:
        """Whether the Hugging Face Hub has its configuration and weights."""
        return self.short.startswith(HUB)


def parts_of(name: str) -> NetworkName:
    """The library, its name of the network, and which weights.

    Raises:
        ValueError: what follows `hf-hub:` is not a repository, torchvision's network has no such weights, or
            a name of torch.hub.
    """
    bare = name.removeprefix("timm/")
    if bare.startswith((HUB, "hf_hub:")):
        repository = bare.partition(":")[2]
        if not _REPOSITORY.fullmatch(repository):
            raise ValueError(
                f"{name!r} names no repository; wanted hf-hub:OWNER/NAME or hf-hub:OWNER/NAME@REVISION"
            )
        return NetworkName("timm", HUB + repository)
    library, slash, short = name.partition("/")
    if library == "torch.hub" or (slash and ":" in short):
        raise ValueError(f"{name!r} is of torch.hub, which runs code of a repository; {FORMS}")
    if not slash:
        return NetworkName("", name)
    if library != "torchvision":
        return NetworkName(library, short)
    short, at, weights = short.partition("@")
    if at and short in models.list_models(module=models):
        known = [member.name for member in models.get_model_weights(short)]
        if weights not in known:
            raise ValueError(
                f"torchvision has no weights {weights!r} of {short}; there are {', '.join(known)}"
            )
    return NetworkName(library, short, weights)


def torchvision_names() -> list[str]:
    """Torchvision's classifiers; to each `@` and a member of its weight enum may be added."""
    return [f"torchvision/{name}" for name in models.list_models(module=models)]


def timm_names() -> list[str]:
    """timm's networks, also with the tags of their weights."""
    import timm  # seconds, and only its own networks need it

    return [
        f"timm/{name}" for name in dict.fromkeys(timm.list_models() + timm.list_models(include_tags=True))
    ]


def unknown(name: str, own: Iterable[str]) -> str:
    """A message that there is no such network, with the nearest names, or the kinds of names."""
    if Path(name).is_dir():
        return (
            f"{name!r} is a folder; wanted the name of a network (what looks at one takes the folder of a "
            "run, too, which holds run.json)"
        )
    library, _, short = name.rpartition("/") if "/" not in name else name.partition("/")
    lists = {"torchvision": torchvision_names, "timm": timm_names}
    there = lists[library]() if library in lists else [*own, *torchvision_names(), *timm_names()]
    shorts = {full: full.partition("/")[2] or full for full in there}
    # papers write ViT-B/16 where libraries write vit_b_16
    plain = re.sub(r"[^a-z0-9.]+", "_", short.partition("@")[0].lower())
    near = get_close_matches(plain, dict.fromkeys(shorts.values()), n=3)
    nearest = [full for close in near for full in there if shorts[full] == close]
    kinds = ", ".join([*own, *KINDS])
    # a path: of a run, perhaps
    missing = "/" in name and library not in lists
    note = ", and no such folder of a run (what looks at a network takes one, too)" if missing else ""
    return f"no network {name!r}{note}; " + (
        f"nearest: {', '.join(nearest)}" if nearest else f"there are {kinds}"
    )
