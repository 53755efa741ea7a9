"""Objectives of multi-label, segmentation and regression networks: a label, a pixel, a mask, an output."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fulgurite.probes.objectives import Objective, layer_objective, pooled
from fulgurite.probes.per_image import Index, Indices, PerImage
from fulgurite.probes.tasks import two_sided_maps


def label_score(labels: Index, *, present: bool = True, layer: str = "") -> Objective:
    """The logit of one label of many, or of a label per image; its negative for `present=False`."""
    sign = 1.0 if present else -1.0
    return _picked(labels, "label", layer, lambda logits: sign * logits, "" if present else "not ")


def label_probability(labels: Index, *, layer: str = "") -> Objective:
    """The sigmoid probability of one label of many, in [0, 1]."""
    return _picked(labels, "label", layer, torch.sigmoid, "probability of ")


def output(number: Index = 0, *, layer: str = "") -> Objective:
    """One output of a regression network, as it is; a map is averaged over its positions."""
    return _picked(number, "output", layer, lambda values: values, "")


def pixel_score(classes: Index, row: Index, column: Index, *, layer: str = "") -> Objective:
    """The logit of a class at one position of a map of logits [n, classes, height, width].

    A map of one logit z has two classes, whose logits are -z/2 and z/2, as for `class_score`.
    Rows and columns are those of the map, counted from 0 at the top left; one for all images, or one for
    each.
    """
    numbers, *places = (
        Indices(index, what) for index, what in ((classes, "class"), (row, "row"), (column, "column"))
    )

    def at(out: Tensor, numbers: Indices, row: Indices, column: Indices) -> Tensor:
        count, _, height, width = out.shape
        y, x = (one.below(size, count, out.device) for one, size in ((row, height), (column, width)))
        return numbers.pick(out[torch.arange(count, device=out.device), :, y, x])

    name = ", ".join(one.name for one in (numbers, *places))
    return layer_objective([numbers, *places], layer, at, name, _maps)


def mask_score(
    classes: Index, mask: Bool[Tensor, "h w"] | Bool[Tensor, "n h w"], *, layer: str = ""
) -> Objective:
    """The logits of a class, summed over the positions of a mask, one for all images or one for each.

    Vinogradova et al. 2020, arxiv.org/abs/2002.11434. A map of one logit z has two classes, whose logits are
    -z/2 and z/2. A mask of another size than the map of logits is
    brought to it by its nearest pixels.
    """
    numbers = Indices(classes, "class")

    def over(out: Tensor, numbers: Indices, mask: PerImage) -> Tensor:
        own = mask.on(out.device).to(out)
        own = F.interpolate(own.reshape(-1, 1, *own.shape[-2:]), size=out.shape[2:], mode="nearest")
        return numbers.pick((out * own).sum((2, 3)))

    targets = [numbers, PerImage(mask, many=mask.dim() == 3)]
    return layer_objective(targets, layer, over, f"{numbers.name} on a mask", _maps)


def _picked(index: Index, what: str, layer: str, of_logits, prefix: str) -> Objective:
    numbers = Indices(index, what)
    name = f"{prefix}{numbers.name}{f' at {layer}' if layer else ''}"
    return layer_objective([numbers], layer, lambda out, numbers: numbers.pick(of_logits(pooled(out))), name)


def _maps(outputs: Mapping[str, Tensor], layer: str) -> Float[Tensor, "n k h w"]:
    out = outputs[layer]
    if out.dim() != 4:
        raise ValueError(
            f"{layer or 'the network'} outputs {tuple(out.shape)}; wanted a map of logits "
            "[images, classes, height, width]"
        )
    out = out.float() if out.dtype != torch.float64 else out
    return two_sided_maps(out) if out.shape[1] == 1 else out
