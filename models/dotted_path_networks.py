"""Networks of the user's own by dotted path, such as `my_package.nets.Net`."""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fulgurite.models.weights import ends
from fulgurite.probes.tasks import answer_by, two_sided

TRUSTED = "FULGURITE_TRUSTED"
"""The environment variable that names packages, with commas, from which the networks of runs are imported."""
_CLASSES = ("num_classes", "classes", "n_classes", "num_labels", "out_features")
_CHANNELS = ("in_channels", "in_chans", "channels", "num_channels", "input_channels")


def is_dotted(name: str) -> bool:
    """Whether a name is a dotted path; the library's names are of one word, or have a slash."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name) is not None


def trust(name: object) -> str:
    """The prefix of a command on a run of this network: nothing, or the variable that trusts its code."""
    return f"{TRUSTED}={name.partition('.')[0]} " if isinstance(name, str) and is_dotted(name) else ""


def own_network(name: str, classes: int | None, channels: int | None, *, typed: bool) -> nn.Module:
    """The network that a class or function of this path creates, for this many classes and channels.

    They are passed to the arguments that are called `num_classes` or `classes`, `in_channels`, `in_chans` or
    `channels`. A network without such arguments is used unchanged, if its first and last layers fit; one with
    a single logit z gets the logits -z/2 and z/2 for two classes, whose cross-entropy is the binary one of z.
    Packages are looked up in the current folder first.

    Args:
        name: the dotted path.
        classes: of the network; None for as many as it has, and 1000 where it must be given.
        channels: of its images; None for as many as it takes, and 3 where it must be given.
        typed: whether the user has typed the name in this command. Importing runs code, so a name that a
            run's folder brings is only imported from a package that `FULGURITE_TRUSTED` names.

    Raises:
        ValueError: the package is not trusted, or there is no such class or function, or it makes no network.
    """
    make = own_function(name, "network", typed=typed)
    known = inspect.signature(make).parameters
    wanted, untold = dict[str, Any](), list[tuple[Sequence[str], int, bool]]()
    for names, value, usual in ((_CLASSES, classes, 1000), (_CHANNELS, channels, 3)):
        taken = next((one for one in names if one in known), None)
        if taken and value is not None:
            wanted[taken] = value
        elif taken and known[taken].default is inspect.Parameter.empty:
            wanted[taken] = usual
        elif value is not None:
            untold.append((names, value, names is _CLASSES))
    try:
        network = make(**wanted)
    except TypeError as error:
        raise ValueError(f"{name} cannot be made of {wanted}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{name} makes a {type(network).__name__}; wanted an nn.Module from images to logits"
        )
    for names, value, is_classes in untold:
        has = made_for(network)[0 if is_classes else 1]
        if is_classes and (has, value) == (1, 2):
            answer_by(network, two_sided)
            continue
        if has != value and (is_classes or value != 3):
            raise ValueError(
                f"{name} takes none of {', '.join(names)}, but {value} is wanted"
                f"{'' if has is None else f', and its layers are made for {has}'}; give it such an argument"
            )
    return network


def made_for(network: nn.Module) -> tuple[int | None, int | None]:
    """How many classes a network's last layer gives, and how many channels its first one takes, if known."""
    stems, heads = ends(network)
    parts = dict(network.named_modules())
    counts = []
    for paths, names in ((heads, ("out_features", "out_channels")), (stems, ("in_channels",))):
        found = [getattr(parts[path], name, None) for path in paths if path in parts for name in names]
        counts.append(next((one for one in found if one is not None), None))
    return counts[0], counts[1]


def own_function(name: str, what: str, *, typed: bool) -> Callable[..., Any]:
    """The class or function of this dotted path, imported; `what` it is for is named in messages.

    Raises:
        ValueError: it is no dotted path, the package is not trusted, or there is no such class or function.
    """
    if not is_dotted(name):
        raise ValueError(f"{name!r} is no {what}; wanted a dotted path, such as my_package.files.load")
    package = name.partition(".")[0]
    trusted = [one.strip() for one in os.environ.get(TRUSTED, "").split(",")]
    if not typed and package not in trusted:
        raise ValueError(
            f"the {what} {name} is code of a package that a run's folder names; if you trust it, set the "
            f"environment variable {TRUSTED}={package}"
        )
    module, _, attribute = name.rpartition(".")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ValueError(f"the {what} {name} cannot be imported: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise ValueError(f"{module} has no class or function {attribute!r}; wanted a {what}")
    return found
