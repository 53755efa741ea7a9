"""Augmentation presets for photographs by name, from none to strong."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from torchvision.transforms import InterpolationMode, v2

from fulgurite.data.crops import at_random, from_the_middle


def _coloured(size: int) -> v2.Compose:
    return at_random(size, changes=[v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.05)])


def _strong(size: int) -> v2.Compose:
    # mid-grey, not black, is what a network with normalised images sees as nothing
    anything = v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR, fill=128)
    return v2.Compose([at_random(size, changes=[anything]), v2.RandomErasing(p=0.25, value=0.5)])


PRESETS: dict[str, Callable[[int], v2.Compose]] = {
    "none": from_the_middle,
    "light": partial(at_random, smallest=0.7),
    "standard": at_random,
    "colour": _coloured,
    "strong": _strong,
    "mixup": at_random,
    "cutmix": at_random,
    "mixup_cutmix": at_random,
}
"""Each frames photographs at a size: a window (of 70 % and more; from "standard" on, of 35 %) that may be
mirrored, then its colours too, and at last TrivialAugment (Mueller & Hutter 2021, arxiv.org/abs/2103.10158)
and erased rectangles (Zhong et al. 2017, arxiv.org/abs/1708.04896). The last three are "standard", and mix
the images of a batch."""
MIXING: dict[str, tuple[str, ...]] = {
    "mixup": ("mixup",),
    "cutmix": ("cutmix",),
    "mixup_cutmix": ("mixup", "cutmix"),
}
"""How a preset mixes the images of a batch, on their device; of two ways, one is drawn for each batch."""


def preset(name: bool | str) -> str:
    """The name of a preset: "standard" for True, "none" for False; ValueError for one that does not exist."""
    if isinstance(name, bool):
        return "standard" if name else "none"
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1) or PRESETS
        raise ValueError(f"no augmentation {name!r} among {', '.join(PRESETS)}; nearest: {', '.join(near)}")
    return name
