"""Maps of logits, as of segmentation networks: their label maps, and the names of their classes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

import torch
from jaxtyping import Bool, Integer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from fulgurite.callbacks.framework.sample import Sample
from fulgurite.probes.counted import counted
from fulgurite.probes.tasks import LogitsOf, two_sided_maps

IGNORED = (-100, 255)
"""Labels of ignored pixels, as in losses and data sets."""


def is_map_of_logits(answer: object) -> TypeGuard[Tensor]:
    """Whether a network gives logits, one or one for each class, at more than one position."""
    return (
        isinstance(answer, Tensor)
        and answer.dim() == 4
        and answer.is_floating_point()
        and answer.shape[1] > 0
        and answer.shape[2:].numel() > 1
    )


def of_maps(
    sample: Sample, shape: torch.Size, network: str, names: Sequence[str] | None
) -> tuple[Sample, LogitsOf | None]:
    """The sample with its task and the names of the classes; and a function from outputs to logits.

    Labels are a class number at each position. One logit is read as two classes by its sign.

    Raises:
        ValueError: labels are of another size than the logits, or no class numbers; or the names are more or
            fewer than the classes.
    """
    logits_of = two_sided_maps if shape[1] == 1 else None
    count = max(2, shape[1])
    own = names or sample.classes or tuple(map(str, range(count)))
    if logits_of and len(own) == 1:
        own = f"no {own[0]}", own[0]
    if len(own) != count:
        raise ValueError(f"{counted(len(own), 'name')} for the {counted(count, 'class')} of {network}")
    labels = sample.maps
    if labels is not None:
        if labels.shape[1:] != shape[2:]:
            raise ValueError(
                f"{network} gives logits at {' x '.join(map(str, shape[2:]))} positions, but the data labels "
                f"at {' x '.join(map(str, labels.shape[1:]))}; wanted the same: bring one to the other's size"
            )
        known = labels[~ignored(labels)]
        if logits_of and bool((labels == IGNORED[1]).any()) and not bool((known == 1).any()):
            rank_zero_warn(
                "masks are 0 and 255, and pixels labelled 255 are ignored; wanted 0 and 1: if 255 is the "
                "object, divide masks by 255"
            )
        if len(known) and (known.min() < 0 or known.max() >= count):
            raise ValueError(
                f"label maps go from {int(known.min())} to {int(known.max())}; wanted class numbers from 0 "
                f"to {count - 1}, or 255 or -100 where there is none"
            )
    return replace(sample, task="segmentation", classes=tuple(own), unfit=""), logits_of


def ignored(labels: Integer[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """Where pixels are ignored."""
    return (
        (labels == IGNORED[0]) | (labels == IGNORED[1])
        if labels.dtype != torch.uint8
        else labels == IGNORED[1]
    )
