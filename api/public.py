"""Public functions: a network is a module, pixels lie in [0, 1], and a class number is an objective."""

import inspect
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from fulgurite.probes.counted import counted
from fulgurite.probes.objectives import Objective, class_score

ROUNDING = 0.01
"""Tolerance around [0, 1], for images whose normalisation was undone."""


def public(function: Callable) -> Callable:
    """The same function, which checks `network` and `images`, and takes an int as an `objective`.

    The network is a module, and images are in [0, 1]. The class number 3 is `class_score(3)`, and a tensor of
    class numbers asks for a class of each image.
    Attacks check their images by the bounds of their threat.
    """
    parameters = inspect.signature(function).parameters
    pixels = "images" in parameters and "threat" not in parameters
    module = "network" in parameters and parameters["network"].annotation is nn.Module
    if not pixels and not module and "objective" not in parameters:
        return function

    @wraps(function)
    def checked(*args: Any, **knobs: Any) -> Any:
        given = dict(zip(parameters, args, strict=False))
        named = {**given, **knobs}
        if module and "network" in named:
            check_network(named["network"], parameters)
        if pixels and "images" in named:
            check_pixels(named["images"], after_maps="maps" in parameters)
        if "objective" in knobs:
            knobs["objective"] = objective_of(knobs["objective"])
        if "objective" in given:
            place = list(parameters).index("objective")
            args = (*args[:place], objective_of(args[place]), *args[place + 1 :])
        try:
            return function(*args, **knobs)
        except RuntimeError as error:
            if reason := _channels(error, named.get("images")):
                raise ValueError(reason) from error
            raise

    return checked


def _channels(error: RuntimeError, images: Any) -> str:
    """A line for torch's message on channels that a convolution does not take, if it is one of the images."""
    found = re.search(r"expected input\[[\d, ]+\] to have (\d+) channels, but got (\d+) channels", str(error))
    if not (found and isinstance(images, Tensor) and images.dim() == 4):
        return ""
    wanted, came = map(int, found.groups())
    if came != images.shape[1]:
        return ""
    last = images.shape[3] == wanted
    return (
        f"images of shape {tuple(images.shape)}, but the network takes {counted(wanted, 'channel')}; wanted "
        f"[n, {wanted}, height, width]{': images.permute(0, 3, 1, 2)' * last}"
    )


def objective_of(objective: Any) -> Any:
    """The class score of a number, or of a tensor of numbers; anything else unchanged.

    Raises:
        ValueError: a name, a fraction, a list with numbers, which is ambiguous, or a tensor that is not of
            whole numbers.
    """
    if isinstance(objective, Tensor):
        if objective.is_floating_point() or objective.dtype == torch.bool or objective.dim() > 1:
            raise ValueError(
                f"an objective that is {objective.dtype} {tuple(objective.shape)}; wanted a class number, or "
                "a tensor of them, one for each image"
            )
        return class_score(objective)
    if isinstance(objective, int) and not isinstance(objective, bool):
        return class_score(objective)
    if isinstance(objective, str | float | bool):
        raise ValueError(f"{objective!r} as an objective; wanted the number of a class, or an objective")
    if isinstance(objective, list | tuple) and not all(isinstance(one, Objective) for one in objective):
        raise ValueError(
            f"{objective} as an objective; wanted torch.tensor([3, 7]) for a class of each image, or "
            "[class_score(3), class_score(7)] for two maps of each image"
        )
    return objective


def check_network(network: Any, arguments: Iterable[str]) -> None:
    """Check that a network is a module.

    Raises:
        ValueError: it is not, with the order of the arguments.
    """
    if not isinstance(network, nn.Module):
        order = ", ".join([*arguments][:3])
        raise ValueError(
            f"a network that is a {type(network).__name__}; wanted a torch.nn.Module: ({order}, ...)"
        )


def check_pixels(images: Any, *, after_maps: bool = False) -> None:
    """Check that images are a tensor, and that these, if they have values, are floats in [0, 1].

    Raises:
        ValueError: they are not, with the likely cause.
    """
    if not isinstance(images, Tensor):
        raise ValueError(
            f"images that are a {type(images).__name__}; wanted a tensor, such as torch.stack(list)"
        )
    if len(images) and not images.numel():
        raise ValueError(f"images of shape {tuple(images.shape)}, which have no pixels")
    if images.is_meta or not images.numel():
        return
    if not images.is_floating_point():
        raise ValueError(f"images that are {images.dtype}; wanted floats in [0, 1]: images / 255")
    low, high = torch.stack(torch.aminmax(images.detach())).tolist()
    if low < -ROUNDING or high > 1 + ROUNDING:
        remedy = (
            "images / 255"
            if low >= 0 and high > 16
            else "these look normalised; undo it, and let the network do it: "
            "fulgurite.normalised(network, mean, std)"
        )
        if after_maps:
            remedy += "; the maps come first: (maps, images)"
        raise ValueError(f"images reach from {low:.3g} to {high:.3g}; wanted pixels in [0, 1]: {remedy}")
