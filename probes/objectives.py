"""Objectives: class scores, channels, units, directions; they add and scale."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
    pick = _picker(classes, "class")
    return _of(
        layer, lambda out: pick(pooled(out)), _each(classes, lambda mine: class_score(mine, layer=layer))
    )


def log_probability(classes: Index, *, layer: str = "") -> Objective:
    """The logarithm of a class's softmax probability: large only if every other class's score is small."""
    pick = _picker(classes, "class")
    return _of(
        layer,
        lambda out: pick(F.log_softmax(pooled(out), 1)),
        _each(classes, lambda mine: log_probability(mine, layer=layer)),
    )


def probability(classes: Index, *, layer: str = "") -> Objective:
    """The softmax probability of a class, in [0, 1]."""
    pick = _picker(classes, "class")
    return _of(
        layer,
        lambda out: pick(F.softmax(pooled(out), 1)),
        _each(classes, lambda mine: probability(mine, layer=layer)),
    )


def channel(layer: str, index: Index) -> Objective:
    """The mean activation of one channel of a layer."""
    pick = _picker(index, "channel")
    return _of(layer, lambda out: pick(pooled(out)), _each(index, lambda mine: channel(layer, mine)))


def unit(layer: str, index: Index, *, row: int | None = None, column: int | None = None) -> Objective:
    """The activation of one unit: a channel at one position, the middle of the map unless told."""

    pick = _picker(index, "channel")

    def at(out: Tensor) -> Tensor:
        if out.dim() == 4:
            y = out.shape[2] // 2 if row is None else row
            x = out.shape[3] // 2 if column is None else column
            if not (0 <= y < out.shape[2] and 0 <= x < out.shape[3]):
                raise ValueError(
                    f"no unit at row {y}, column {x} of {layer!r}: its maps are {tuple(out.shape[2:])}"
                )
            out = out[:, :, y, x]
        return pick(out)

    return _of(layer, at, _each(index, lambda mine: unit(layer, mine, row=row, column=column)))


def direction(layer: str, vector: Float[Tensor, "d"] | Float[Tensor, "n d"]) -> Objective:
    """The activation along a direction in a layer's feature space: a dot product, averaged over positions."""

    def along(out: Tensor) -> Tensor:
        averaged = pooled(out)
        return (averaged * _fitting(averaged, vector, layer)).sum(-1)

    many = vector if vector.dim() > 1 else 0
    return _of(layer, along, _each(many, lambda mine: direction(layer, mine)))


def match(layer: str, code: Float[Tensor, "n ..."]) -> Objective:
    """Minus the squared distance of a layer's output to a code, relative to the code's squared length.

    0 where the layer puts out the code itself. Mahendran & Vedaldi 2015, arxiv.org/abs/1412.0035.
    """

    def likeness(out: Tensor) -> Tensor:
        wanted = _fitting(out, code, layer)
        return -(out - wanted).flatten(1).square().sum(1) / wanted.flatten(1).square().sum(1)

    many = code if len(code) > 1 else 0
    return _of(layer, likeness, _each(many, lambda mine: match(layer, mine)))


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


def _each(
    asked: Tensor | int, make: Callable[[Tensor], Objective]
) -> Callable[[Tensor, int], Objective] | None:
    """How an objective that has something of each image's own asks it of some of the images."""
    if isinstance(asked, int) or asked.dim() == 0:
        return None

    def each(rows: Tensor, count: int) -> Objective:
        if len(asked) != count:
            raise ValueError(f"an objective for {len(asked)} images came with {count}; wanted one for each")
        return make(asked[rows.to(asked.device)])

    return each


def _picker(index: Index, what: str) -> Callable[[Float[Tensor, "n k"]], Float[Tensor, "n"]]:
    """Picks one value, or one for each image; what was asked for is read once, not at every look."""
    each = not isinstance(index, int) and index.dim() > 0
    asked = [int(index)] if isinstance(index, int) or index.dim() == 0 else index.tolist()
    with torch.inference_mode(False):  # no graph may keep a tensor made under inference_mode
        places = torch.tensor(asked, dtype=torch.long)[:, None]
    lowest, highest = min(asked, default=0), max(asked, default=0)

    def pick(values: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
        if not (lowest >= 0 and highest < values.shape[1]):
            wrong = lowest if lowest < 0 else highest
            raise ValueError(f"no {what} {wrong}: there are {values.shape[1]}, counted from 0")
        if not each:
            return values[:, lowest]
        if len(places) != len(values):
            raise ValueError(
                f"{len(places)} {what} indices for {len(values)} images; wanted one for each, or a single int"
            )
        return values.gather(1, places.to(values.device))[:, 0]

    return pick


def _fitting(out: Tensor, wanted: Tensor, layer: str) -> Tensor:
    if out.shape[1:] != wanted.shape[-(out.dim() - 1) :]:
        raise ValueError(
            f"{layer!r} puts out {tuple(out.shape[1:])}, but {tuple(wanted.shape)} came to compare with"
        )
    return _normal(wanted, out.device)


def _normal(given: Tensor, device: torch.device) -> Tensor:
    # a copy: no graph may keep a tensor made under inference_mode
    return given.to(device, copy=True)
