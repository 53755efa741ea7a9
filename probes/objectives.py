"""Objectives: class scores, channels, units, directions; they add and scale."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Index = int | Int[Tensor, ""] | Int[Tensor, "n"]


@dataclass(frozen=True)
class Objective:
    """A number per image, and the layers it is read from (`""` is the network's output).

    Objectives add, subtract and scale: `class_score(3) - 0.1 * channel("layer3", 8)` is one too. One that
    asks something else of each image (a class per image) says by `each(rows, count)` what it asks of images
    that are the `rows` of a batch of `count`, in any order and number; without it, it asks all the same.
    """

    layers: frozenset[str]
    value: Callable[[Mapping[str, Tensor]], Float[Tensor, "n"]]
    each: "Callable[[Int[Tensor, 'm'], int], Objective] | None" = None

    def of(self, rows: Int[Tensor, "m"], count: int) -> "Objective":
        """The same question, put to images that are the `rows` of a batch of `count`."""
        return self if self.each is None else self.each(rows, count)

    def __add__(self, other: "Objective") -> "Objective":
        return Objective(
            self.layers | other.layers,
            lambda seen: self.value(seen) + other.value(seen),
            None
            if self.each is other.each is None
            else lambda rows, count: self.of(rows, count) + other.of(rows, count),
        )

    def __mul__(self, weight: float) -> "Objective":
        return Objective(
            self.layers,
            lambda seen: weight * self.value(seen),
            None if self.each is None else lambda rows, count: weight * self.of(rows, count),
        )

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return -1.0 * self

    def __sub__(self, other: "Objective") -> "Objective":
        return self + -other


Asked = Objective | Sequence[Objective]


def class_score(classes: Index, *, layer: str = "") -> Objective:
    """The logit of a class, or of a class per image; a map of logits is averaged over its positions.

    Ask for the layer before it where the logits pass through a ReLU, as SqueezeNet's do (`classifier.1`).
    """
    return _picked(classes, "class", layer, lambda out, pick: pick(pooled(out)))


def log_probability(classes: Index, *, layer: str = "") -> Objective:
    """The logarithm of a class's softmax probability: large only if every other class's score is small."""
    return _picked(classes, "class", layer, lambda out, pick: pick(F.log_softmax(pooled(out), 1)))


def probability(classes: Index, *, layer: str = "") -> Objective:
    """The softmax probability of a class, in [0, 1]."""
    return _picked(classes, "class", layer, lambda out, pick: pick(F.softmax(pooled(out), 1)))


def channel(layer: str, index: Index) -> Objective:
    """The mean activation of one channel of a layer."""
    return _picked(index, "channel", layer, lambda out, pick: pick(pooled(out)))


def unit(layer: str, index: Index, *, row: int | None = None, column: int | None = None) -> Objective:
    """The activation of one unit: a channel at one position, the middle of the map unless told."""

    def at(out: Tensor, pick: _Picker) -> Tensor:
        if out.dim() == 4:
            y = out.shape[2] // 2 if row is None else row
            x = out.shape[3] // 2 if column is None else column
            if not (0 <= y < out.shape[2] and 0 <= x < out.shape[3]):
                raise ValueError(
                    f"no unit at row {y}, column {x} of {layer!r}: its maps are {tuple(out.shape[2:])}"
                )
            out = out[:, :, y, x]
        return pick(out)

    return _picked(index, "channel", layer, at)


def direction(layer: str, vector: Float[Tensor, "d"] | Float[Tensor, "n d"]) -> Objective:
    """The activation along a direction in a layer's feature space: a dot product, averaged over positions."""

    def along(out: Tensor, given: _Given) -> Tensor:
        averaged = pooled(out)
        return (averaged * _fitting(averaged, given, layer)).sum(-1)

    return _compared(_Given(vector, many=vector.dim() > 1), layer, along)


def match(layer: str, code: Float[Tensor, "n ..."]) -> Objective:
    """Minus the squared distance of a layer's output to a code, relative to the code's squared length.

    0 where the layer puts out the code itself. Mahendran & Vedaldi 2015, arxiv.org/abs/1412.0035.
    """

    def likeness(out: Tensor, given: _Given) -> Tensor:
        wanted = _fitting(out, given, layer)
        return -(out - wanted).flatten(1).square().sum(1) / wanted.flatten(1).square().sum(1)

    return _compared(_Given(code, many=len(code) > 1), layer, likeness)


def energy(layer: str) -> Objective:
    """Half the squared length of all that a layer puts out: what DeepDream makes large."""
    return _of(layer, lambda out: out.flatten(1).square().sum(1) / 2)


def pooled(out: Tensor) -> Float[Tensor, "n k"]:
    """What a layer puts out, maps averaged over their positions.

    Raises:
        ValueError: it is not at least a row of values for each image.
    """
    if out.dim() < 2:
        raise ValueError(f"wanted a row of values for each image, got a tensor of shape {tuple(out.shape)}")
    return out.flatten(2).mean(2) if out.dim() > 2 else out


def at_least_float32(out: Tensor) -> Tensor:
    """The tensor in at least float32, so that sums over half-precision values are true."""
    return out if out.dtype == torch.float64 else out.float()


def as_list(asked: Asked) -> Sequence[Objective]:
    """The objectives, of which there may be but one.

    Raises:
        ValueError: there is none.
    """
    if isinstance(asked, Objective):
        return [asked]
    if not asked:
        raise ValueError("no objective; wanted one, or a sequence of them, such as [class_score(3)]")
    return asked


def layers_read(asked: Asked) -> list[str]:
    """The layers that the objectives read."""
    return sorted(frozenset[str]().union(*(objective.layers for objective in as_list(asked))))


def squeeze_single(values: Tensor, asked: Asked) -> Tensor:
    """Values with a dimension for the objectives in front; without it, where one was asked, no sequence."""
    return values[0] if isinstance(asked, Objective) else values


def _of(
    layer: str,
    value: Callable[[Tensor], Tensor],
    each: Callable[[Tensor, int], Objective] | None = None,
) -> Objective:
    return Objective(frozenset({layer}), lambda seen: value(at_least_float32(seen[layer])), each)


class _Given:
    """A tensor to compare with, one for all images or one for each; brought to a device once.

    A copy, whatever the device: no graph may keep a tensor made under inference_mode.
    """

    def __init__(self, given: Tensor, *, many: bool):
        self.many, self._on = many, dict[torch.device, Tensor]()
        with torch.inference_mode(False):
            self._own = given.detach().clone()

    def on(self, device: torch.device) -> Tensor:
        if device == self._own.device:
            return self._own
        if device not in self._on:
            with torch.inference_mode(False):
                self._on[device] = self._own.to(device)
        return self._on[device]

    def some(self, rows: Tensor, count: int) -> "_Given":
        """Those of images that are the `rows` of a batch of `count`."""
        if len(self._own) != count:
            raise ValueError(
                f"an objective for {len(self._own)} images came with {count}; wanted one for each"
            )
        some = copy.copy(self)
        some._own, some._on = self.on(rows.device)[rows], {}
        return some


class _Picker(_Given):
    """Picks one value, or one for each image; what was asked for is read once, not at every look."""

    def __init__(self, index: Index, what: str):
        asked = [int(index)] if isinstance(index, int) or index.dim() == 0 else index.tolist()
        places = index if isinstance(index, Tensor) else torch.tensor(asked)
        super().__init__(places.long().reshape(-1, 1), many=not isinstance(index, int) and index.dim() > 0)
        self.what, self.lowest, self.highest = what, min(asked, default=0), max(asked, default=0)

    def __call__(self, values: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
        if not (self.lowest >= 0 and self.highest < values.shape[1]):
            wrong = self.lowest if self.lowest < 0 else self.highest
            raise ValueError(f"no {self.what} {wrong}: there are {values.shape[1]}, counted from 0")
        if not self.many:
            return values[:, self.lowest]
        places = self.on(values.device)
        if len(places) != len(values):
            raise ValueError(
                f"{len(places)} {self.what} indices for {len(values)} images; wanted one for each, or a "
                "single int"
            )
        return values.gather(1, places)[:, 0]


G = TypeVar("G", bound=_Given)


def _picked(index: Index, what: str, layer: str, value: Callable[[Tensor, _Picker], Tensor]) -> Objective:
    return _compared(_Picker(index, what), layer, value)


def _compared(given: G, layer: str, value: Callable[[Tensor, G], Tensor]) -> Objective:
    """What a layer puts out beside what was given; of some of the images, beside what was given for those."""

    def each(rows: Tensor, count: int) -> Objective:
        return _compared(given.some(rows, count), layer, value)  # pyright: ignore[reportArgumentType]

    return _of(layer, lambda out: value(out, given), each if given.many else None)


def _fitting(out: Tensor, given: _Given, layer: str) -> Tensor:
    wanted = given.on(out.device)
    if out.shape[1:] != wanted.shape[-(out.dim() - 1) :]:
        raise ValueError(
            f"{layer!r} puts out {tuple(out.shape[1:])}, but {tuple(wanted.shape)} came to compare with"
        )
    return wanted
