"""Objectives: class scores, channels, units, directions; they add and scale."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fulgurite.probes.channels import feature_maps, features
from fulgurite.probes.counted import counted
from fulgurite.probes.per_image import Index, Indices, PerImage
from fulgurite.probes.tasks import two_sided


@dataclass(frozen=True)
class Objective:
    """A number per image, computed from the outputs of layers (`""` is the network's output).

    Objectives add, subtract and scale: `class_score(3) - 0.1 * channel("layer3", 8)` is one too, and so is
    `sum([...])` of several. One that differs from image to image (a class per image) gives by
    `each(rows, count)` the objective for images that are the `rows` of a batch of `count`, in any order and
    number; without it, it is the same for all.

    Args:
        layers: the layers that it reads.
        value: computes a number per image from the outputs of the layers.
        each: see above.
        name: for legends and tables.
        vector: it gives several numbers per image, [n, k]; `objective[3]` is the fourth of them.
        couples: an image's number depends on the others of its batch, which then cannot be cut.
    """

    layers: frozenset[str]
    value: Callable[[Mapping[str, Tensor]], Float[Tensor, "n"] | Float[Tensor, "n k"]]
    each: "Callable[[Int[Tensor, 'm'], int], Objective] | None" = None
    name: str = "objective"
    vector: bool = False
    couples: bool = False

    def __str__(self) -> str:
        return self.name

    def of(self, rows: Int[Tensor, "m"], count: int) -> "Objective":
        """The objective for images that are the `rows` of a batch of `count`.

        Raises:
            ValueError: it couples the images of a batch, and these are not all of it, each once.
        """
        if self.couples and rows.sort().values.tolist() != [*range(count)]:
            raise ValueError(
                f"{self.name} couples the images of a batch; wanted an objective that does not, or all "
                f"{counted(count, 'image')} at once, not {len(rows)}"
            )
        return self if self.each is None else self.each(rows, count)

    def __add__(self, other: "Objective | int") -> "Objective":
        if not isinstance(other, Objective):
            return self if other == 0 else NotImplemented  # where sum() begins
        if self.vector is not other.vector:
            raise ValueError(f"{self} and {other}: one gives several numbers per image, the other one")
        return Objective(
            self.layers | other.layers,
            lambda outputs: self.value(outputs) + other.value(outputs),
            None
            if self.each is other.each is None
            else lambda rows, count: self.of(rows, count) + other.of(rows, count),
            _sum_of(self.name, other.name),
            self.vector,
            self.couples or other.couples,
        )

    __radd__ = __add__

    def __mul__(self, weight: float) -> "Objective":
        return self._with(
            lambda values: weight * values,
            f"{weight:g} ({self.name})" if {"+", "-"} & {*self.name.split()} else f"{weight:g} {self.name}",
        )

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return -1.0 * self

    def __sub__(self, other: "Objective") -> "Objective":
        return self + -other

    def up_to(self, limit: float) -> "Objective":
        """The objective, flat above a limit: images that have reached it no longer change."""
        return self._with(lambda values: values.clamp(max=limit), self.name)

    def __getitem__(self, k: int) -> "Objective":
        """One of the numbers of a vector-valued objective.

        Raises:
            ValueError: it gives one number per image as it is.
        """
        if not self.vector:
            raise ValueError(f"{self.name} gives one number per image; there is nothing to pick")
        return replace(self._with(lambda values: values[:, k], f"{self.name}[{k}]"), vector=False)

    def _with(self, change: Callable[[Tensor], Tensor], name: str) -> "Objective":
        each = self.each
        return replace(
            self,
            value=lambda outputs: change(self.value(outputs)),
            each=None if each is None else lambda rows, count: each(rows, count)._with(change, name),
            name=name,
        )


Objectives = Objective | Sequence[Objective]


def class_score(classes: Index, *, layer: str = "") -> Objective:
    """The logit of a class, or of a class per image; a map of logits is averaged over its positions.

    One logit z is that of class 1 of two: the classes then have the logits -z/2 and z/2, whose softmax is the
    sigmoid of z. For the output of a regression use `output`, for one label of many `label_score`. Read the
    layer before it where the logits pass through a ReLU, as in SqueezeNet (`classifier.1`).
    """
    return _class(classes, layer, lambda logits: logits, "")


def log_probability(classes: Index, *, layer: str = "") -> Objective:
    """The logarithm of a class's softmax probability: large only if every other class's score is small."""
    return _class(classes, layer, lambda logits: F.log_softmax(logits, 1), "log-probability of ")


def probability(classes: Index, *, layer: str = "") -> Objective:
    """The softmax probability of a class, in [0, 1]."""
    return _class(classes, layer, lambda logits: F.softmax(logits, 1), "probability of ")


def channel(layer: str, index: Index) -> Objective:
    """The mean activation of one channel of a layer."""
    numbers = Indices(index, "channel")
    name = f"{numbers.name} of {layer or 'the output'}"
    return layer_objective([numbers], layer, lambda out, numbers: numbers.pick(pooled(out)), name)


def channels(layer: str) -> Objective:
    """The mean activation of every channel of a layer, as one vector-valued objective."""
    return replace(layer_objective([], layer, pooled, f"channels of {layer or 'the output'}"), vector=True)


def vector(objectives: "Sequence[Objective]") -> Objective:
    """Several objectives as one, whose numbers are all found in the same pass.

    Raises:
        ValueError: there is none, or one of them is vector-valued itself.
    """
    parts = as_list(objectives)
    return Objective(
        frozenset(layers_read(parts)),
        lambda outputs: torch.stack([one.value(outputs) for one in parts], 1),
        None
        if all(one.each is None for one in parts)
        else lambda rows, count: vector([one.of(rows, count) for one in parts]),
        ", ".join(one.name for one in parts),
        vector=True,
        couples=any(one.couples for one in parts),
    )


def unit(layer: str, index: Index, *, row: Index | None = None, column: Index | None = None) -> Objective:
    """The activation of one unit: a channel at one position, the middle of the map by default.

    Channel, row and column may be one for all images, or one for each. Tokens are maps if their
    grid is known.
    """
    numbers = Indices(index, "channel")
    places = [
        None if place is None else Indices(place, what) for place, what in ((row, "row"), (column, "column"))
    ]
    name = ", ".join(one.name for one in (numbers, *places) if one)

    def at(out: Tensor, numbers: Indices, *places: Indices) -> Tensor:
        if out.dim() == 4:
            count, _, *sizes = out.shape
            remaining = iter(places)
            y, x = (
                size // 2 if place is None else next(remaining).below(size, count, out.device)
                for place, size in zip((row, column), sizes, strict=True)
            )
            out = out[torch.arange(count, device=out.device), :, y, x]
        return numbers.pick(out)

    targets = [numbers, *(place for place in places if place)]
    return layer_objective(targets, layer, at, f"unit of {name} of {layer or 'the output'}", feature_maps)


def direction(layer: str, vector: Float[Tensor, "d"] | Float[Tensor, "n d"]) -> Objective:
    """The activation along a direction in a layer's feature space: a dot product, averaged over positions."""

    def along(out: Tensor, targets: PerImage) -> Tensor:
        averaged = pooled(out)
        return (averaged * targets.fitting(averaged, layer)).sum(-1)

    name = f"a direction of {layer or 'the output'}"
    return layer_objective([PerImage(vector, many=vector.dim() > 1)], layer, along, name)


def pooled(out: Tensor) -> Float[Tensor, "n k"]:
    """A layer's output, maps averaged over their positions.

    Raises:
        ValueError: it is not at least a row of values for each image.
    """
    if out.dim() < 2:
        raise ValueError(f"wanted a row of values for each image, got a tensor of shape {tuple(out.shape)}")
    return out.flatten(2).mean(2) if out.dim() > 2 else out


def as_list(objective: Objectives) -> Sequence[Objective]:
    """The objectives as a list; there may be only one.

    Raises:
        ValueError: there is none, or one gives several numbers per image.
    """
    objectives = [objective] if isinstance(objective, Objective) else objective
    if not objectives:
        raise ValueError("no objective; wanted one, or a sequence of them, such as [class_score(3)]")
    for each in objectives:
        if each.vector:
            raise ValueError(f"{each} gives several numbers per image; pick one, as in objective[3]")
    return objectives


def layers_read(objective: Objectives) -> list[str]:
    """The layers that the objectives read."""
    return sorted(frozenset[str]().union(*(each.layers for each in _objectives(objective))))


def squeeze_single(values: Tensor, objective: Objectives) -> Tensor:
    """Values with a first dimension for the objectives; without it for a single objective."""
    return values[0] if isinstance(objective, Objective) else values


def _sum_of(one: str, other: str) -> str:
    return f"{one} - {other[3:]}" if other.startswith("-1 ") else f"{one} + {other}"


def _objectives(objective: Objectives) -> Sequence[Objective]:
    return [objective] if isinstance(objective, Objective) else objective


def layer_objective(
    targets: Sequence[PerImage],
    layer: str,
    value: Callable[..., Tensor],
    name: str,
    read: Callable[[Mapping[str, Tensor], str], Tensor] = features,
) -> Objective:
    """An objective of one layer and of targets, for all images or for each.

    Args:
        targets: values for all images, or for each; for some of the images, `value` gets theirs.
        layer: the layer that it reads.
        value: computes a number per image from the layer's output and the targets.
        name: for legends and tables.
        read: how the output is read; channels first.
    """

    def each(rows: Tensor, count: int) -> Objective:
        return layer_objective([one.some(rows, count) for one in targets], layer, value, name, read)

    many = any(one.many for one in targets)
    return Objective(
        frozenset({layer}),
        lambda outputs: value(read(outputs, layer), *targets),
        each if many else None,
        name,
    )


def _class(classes: Index, layer: str, of_logits: Callable[[Tensor], Tensor], what: str) -> Objective:
    numbers = Indices(classes, "class")
    name = f"{what}{numbers.name}{f' at {layer}' if layer else ''}"
    return layer_objective([numbers], layer, lambda out, numbers: numbers.pick(of_logits(_logits(out))), name)


def _logits(out: Tensor) -> Float[Tensor, "n k"]:
    logits = pooled(out)
    return two_sided(logits) if logits.shape[1] == 1 else logits
