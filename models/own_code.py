"""Networks of the user's own by dotted path, such as `my_package.nets.Net`."""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

TRUSTED = "FULGURITE_TRUSTED"
"""The environment variable that names packages, with commas, from which the networks of runs are imported."""
_CLASSES = ("num_classes", "classes", "n_classes", "num_labels", "out_features")
_CHANNELS = ("in_channels", "in_chans", "channels", "num_channels", "input_channels")


def is_dotted(name: str) -> bool:
    """Whether a name is a dotted path; the library's names are of one word, or have a slash."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name) is not None


def own_network(name: str, classes: int, channels: int, *, typed: bool) -> nn.Module:
    """The network that a class or function of this path makes, for so many classes and channels.

    They go to the arguments that are called `num_classes` or `classes`, `in_channels`, `in_chans` or
    `channels`. The current folder is where packages are looked for first.

    Args:
        name: the dotted path.
        classes: of the network.
        channels: of its images.
        typed: whether the user has typed the name here and now. Importing runs code, so a name that a run's
            folder brings is only imported from a package that `FULGURITE_TRUSTED` names.

    Raises:
        ValueError: the package is not trusted, or there is no such class or function, or it makes no network.
    """
    make = own_function(name, "network", typed=typed)
    known = inspect.signature(make).parameters
    wanted: dict[str, Any] = {}
    for names, value, usual in ((_CLASSES, classes, None), (_CHANNELS, channels, 3)):
        if taken := next((one for one in names if one in known), None):
            wanted[taken] = value
        elif value != usual:
            raise ValueError(
                f"{name} takes none of {', '.join(names)}, but {value} is wanted; give it such an argument"
            )
    try:
        network = make(**wanted)
    except TypeError as error:
        raise ValueError(f"{name} cannot be made of {wanted}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{name} makes a {type(network).__name__}; wanted an nn.Module from images to logits"
        )
    return network


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
