"""Classifier, penultimate layer and stages of a network, read off a trace."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fulgurite.probes.record import layers_of
from fulgurite.probes.trace import Call

# none of them ends a stage: they compute no new features
_PASSING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity, nn.Flatten)
_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def classifier_layer(calls: Sequence[Call]) -> str:
    """The path of the layer that gives the logits: the last linear layer or convolution to run.

    Raises:
        ValueError: none runs.
    """
    return calls[_classifier(calls)].path


def penultimate(calls: Sequence[Call]) -> str:
    """The path of the layer before the classifier: its output, pooled and flattened, is the image's code.

    It is the last part to end before the classifier begins, except for dropout, flattening and pooling.
    Functions that the forward pass applies between layers (a ReLU, say) are not included.

    Raises:
        ValueError: there is no classifier, or nothing before it.
    """
    place = _classifier(calls)
    for call in reversed(calls[:place]):
        before = call.begun < calls[place].begun and _maps(call, calls[-1].inputs[0][0]) is not None
        if before and not isinstance(call.module, _PASSING + _POOLING):
            return call.path
    raise ValueError(f"{_name(calls)} has no layer before its classifier: name the layer yourself")


def stages(calls: Sequence[Call], *, max_stages: int = 8) -> list[str]:
    """The layers where a stage ends, from the stem to the last one before the classifier, as they run.

    A stage is a part with weights, together with the normalisation and the activation that follow it; a
    part that holds the classifier, or halves the maps twice, is split into its own parts. With more than
    `max_stages`, a stage is everything that runs at one size of the maps.

    Args:
        calls: of a `trace` of images of the size to be looked at.
        max_stages: how many, at most.

    Raises:
        ValueError: the network has no linear layer and no convolution, or none but the classifier.
    """
    runs = _runs(calls)
    if not runs:
        raise ValueError(f"{_name(calls)} has no stage before its classifier: name the layers yourself")
    if len(runs) > max_stages:
        # the last of each size; layers without positions stay as they are
        ends = [run for run, after in zip(runs, [*runs[1:], None], strict=True) if _ends(run, after)]
        runs = ends if len(ends) > 2 else runs
    if len(runs) > max_stages:
        runs = [runs[round((place + 1) * len(runs) / max_stages) - 1] for place in range(max_stages)]
    return [run.name for run in runs]


def _classifier(calls: Sequence[Call]) -> int:
    places = [place for place, call in enumerate(calls) if isinstance(call.module, nn.Linear | nn.Conv2d)]
    if not places:
        raise ValueError(f"{_name(calls)} has no linear layer and no convolution: name the layers yourself")
    return places[-1]


def _name(calls: Sequence[Call]) -> str:
    return type(calls[-1].module).__name__


@dataclass
class _Run:
    """Calls from one with weights to the last that only normalises or activates: their size, and the last."""

    size: int | None
    name: str


def _runs(calls: Sequence[Call]) -> list[_Run]:
    names, last = [call.path for call in calls], _classifier(calls)
    count, *_, height, width = calls[-1].inputs[0]
    latest = {call.path: call for call in calls if call.path != names[last]}
    rows = {path for path, call in latest.items() if _is_row(call, calls, last, height * width)}
    runs = list[_Run]()
    for call in calls[:last]:
        shape = _maps(call, count)
        if shape is None or names.count(call.path) > 1 or isinstance(call.module, _PASSING + _POOLING):
            continue
        # what is never called, as a ModuleList, is looked into
        if not all(holder in rows or holder not in names for holder in _holders(call.path)):
            continue
        size = _halvings(shape, height * width)
        if call.path not in rows and any(weight.dim() > 1 for weight in call.module.parameters()):
            runs.append(_Run(size, call.path))
        elif runs and runs[-1].size == size:
            runs[-1].name = call.path
    return runs


def _maps(call: Call, count: int) -> torch.Size | None:
    """The shape of what a call outputs, where it is one tensor with values for each image."""
    shape = call.output
    return shape if shape is not None and len(shape) > 1 and shape[0] == count else None


def _is_row(call: Call, calls: Sequence[Call], last: int, area: int) -> bool:
    """Whether a part is a row of stages, not one of them."""
    path, count = call.path, calls[-1].inputs[0][0]
    if type(call.module) is nn.Sequential or path == "" or calls[last].path.startswith(f"{path}."):
        return True
    if _maps(call, count) is None:
        return False  # branches, which its parts may run in any order
    convolutions = {
        f"{path}.{name}" for name, part in layers_of(call.module).items() if isinstance(part, nn.Conv2d)
    }
    maps = [shape for inner in calls if inner.path in convolutions and (shape := _maps(inner, count))]
    return len({_halvings(shape, area) for shape in maps if shape[2:].numel() > 1}) > 2


def _holders(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition(".")[0]
        yield path


def _halvings(shape: torch.Size, area: int) -> int | None:
    """How often the sides of the image have been halved, rounded; None without positions."""
    return round(math.log2(area / shape[2:].numel()) / 2) if len(shape) == 4 else None


def _ends(run: _Run, after: _Run | None) -> bool:
    return after is None or run.size is None or run.size != after.size
