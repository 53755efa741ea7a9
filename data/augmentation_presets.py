"""Augmentation presets by name, from none to strong: for photographs, and for batches of small images."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from fulgurite.data.augment import cropped, flipped
from fulgurite.data.crops import at_random, from_the_middle


def _jitter() -> v2.Transform:
    return v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05)


def _anything(grey: float) -> v2.Transform:
    # a network with normalised images sees mid-grey, not black, as nearly 0
    return v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR, fill=grey)


def _erasing() -> v2.Transform:
    return v2.RandomErasing(p=0.25, value=0.5)


def _coloured(size: int, *, mirror: bool = True) -> v2.Compose:
    return at_random(size, mirror=mirror, changes=[_jitter()])


def _strong(size: int, *, mirror: bool = True) -> v2.Compose:
    return v2.Compose([at_random(size, mirror=mirror, changes=[_anything(128)]), _erasing()])


PRESETS: dict[str, Callable[..., v2.Compose]] = {
    "none": from_the_middle,
    "light": partial(at_random, smallest=0.7),
    "standard": at_random,
    "colour": _coloured,
    "strong": _strong,
    "mixup": at_random,
    "cutmix": at_random,
    "mixup_cutmix": at_random,
}
"""Each crops photographs to a size: a window (of 70 % and more; from "standard" on, of 35 %) that may be
mirrored; then changes colours, and at last applies TrivialAugment (Mueller & Hutter 2021,
arxiv.org/abs/2103.10158) and erased rectangles (Zhong et al. 2017, arxiv.org/abs/1708.04896). The last three
are "standard" with mixed images of a batch."""
MIXING: dict[str, tuple[str, ...]] = {
    "mixup": ("mixup",),
    "cutmix": ("cutmix",),
    "mixup_cutmix": ("mixup", "cutmix"),
}
"""How a preset mixes the images of a batch, on their device; of two ways, one is drawn for each batch."""


def batch_preset(
    name: str, size: int, *, mirror: bool = True
) -> Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]] | None:
    """A preset for batches of images that are too small to be enlarged from windows; None for "none".

    Instead each is moved by up to an eighth of its side (a sixteenth in "light"), by reflection, as is usual
    for CIFAR-10; all else is as for photographs.

    Args:
        name: one of `PRESETS`.
        size: the side of the images, in pixels.
        mirror: also mirrored half of the time.
    """
    if name == "none":
        return None
    each = {"colour": [_jitter()], "strong": [_anything(0.5), _erasing()]}.get(name)
    changes = [
        partial(cropped, padding=size // (16 if name == "light" else 8)),
        *([flipped] if mirror else []),
        *([partial(_each, change=v2.Compose(each))] if each else []),
    ]
    return v2.Compose(changes)


def _each(images: Float[Tensor, "n c h w"], *, change: v2.Transform) -> Float[Tensor, "n c h w"]:
    """Every image changed by its own random draws."""
    return torch.stack([change(image) for image in images])


def preset(name: bool | str) -> str:
    """The name of a preset: "standard" for True, "none" for False; ValueError for one that does not exist."""
    if isinstance(name, bool):
        return "standard" if name else "none"
    if name not in PRESETS:
        near = "".join(f"; nearest: {one}" for one in get_close_matches(name, PRESETS, n=1))
        raise ValueError(f"no augmentation {name!r} among {', '.join(PRESETS)}{near}")
    return name
