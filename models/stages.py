"""The stages of a network by depth, from the stem to the head."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import nn

from fulgurite.models.weights import ends
from fulgurite.probes.record import bare, layers_of
from fulgurite.probes.trace import trace

_LAYERS = nn.Conv2d | nn.Linear


class Stage(NamedTuple):
    """A part of a network that works at one scale, and the pattern that fits its parameters."""

    name: str
    pattern: str


def stages_of(network: nn.Module, *, shape: Sequence[int] | None = None) -> list[Stage]:
    """The stages of a network by depth, from the stem to the head; every parameter is in exactly one.

    A stage is layers, or whole blocks of them, that follow one another without halving the area of their
    maps. A lone convolution ahead of the first block of its scale is a stage of its own. The head is the last
    layer (as timm says, elsewhere by definition), together with layers that a plain pass does not run:
    auxiliary heads.

    The network is run once, without computing anything, on an image of `shape`: channels, height and width.
    Without it, that is what timm says, or 224 pixels square.

    Raises:
        ValueError: the network does not end in a layer, or cannot take such an image.
    """
    network = bare(network)
    names = _tensors(network)
    there = {path for name in names for path in _around(name)}
    heads = [head for head in ends(network)[1] if head in there]
    if not heads:
        raise ValueError(
            f"this {type(network).__name__} has no head: its last layer is no convolution or linear one"
        )
    parts = _Parts(network, _areas(network, _shape(network) if shape is None else shape), heads, there)
    stages, area, lone = [list[str]()], 0, True
    for _, path in sorted(parts.units, key=itemgetter(0)):
        if own := parts.areas(path):
            after_stem = len(stages) == 1 and lone and len(own) > 1
            if area and (2 * _put_out(own) <= area or after_stem):
                stages.append([])
                area = 0
            area, lone = area or _put_out(own), lone and len(own) == 1
        stages[-1].append(path)
    stages.append([*heads, *parts.unused])
    patterns = [_covering({*paths}, names) for paths in stages if paths]
    return [Stage(title_of(pattern), pattern) for pattern in patterns]


def parameters_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by name, a compiled network's as a bare one's."""
    return {name.replace("_orig_mod.", ""): own for name, own in bare(network).named_parameters()}


def title_of(pattern: str) -> str:
    """A pattern without escapes, and only the ends of a long list."""
    parts = re.sub(r"(\\\.|\$)(?=\||$)|\\", "", pattern).split("|")
    if len(parts) <= 3 or "(" in pattern:
        return "|".join(parts) or "the rest"
    return f"{parts[0]}..{parts[-1]}"


def _tensors(network: nn.Module) -> list[str]:
    """The names that a table applies to: parameters, and normalisation statistics."""
    layers = layers_of(network).items()
    statistics = [
        path for path, part in layers if isinstance(getattr(part, "running_mean", None), torch.Tensor)
    ]
    return [*parameters_of(network), *(f"{path}.running_mean" for path in statistics)]


def _around(name: str) -> list[str]:
    """The name and whatever it lies in, from the network ("") inwards."""
    parts = name.split(".")
    return [*dict.fromkeys(["", *(".".join(parts[:depth]) for depth in range(1, len(parts) + 1))])]


def _shape(network: nn.Module) -> Sequence[int]:
    config = getattr(network, "pretrained_cfg", None) or {}
    channels, *sides = config.get("input_size") or (3, 224, 224)
    (stem, *_), _ = ends(network)
    in_channels = getattr(network.get_submodule(stem), "in_channels", channels)
    normalise = dict(network.named_buffers()).get("normalise.mean")
    if normalise is not None:
        in_channels = len(normalise)
    elif config and in_channels > 4:  # a stem that folds space into channels
        in_channels = channels
    return [in_channels, *sides]


def _areas(network: nn.Module, shape: Sequence[int]) -> dict[str, int]:
    """How many places each convolution or linear layer outputs, in the order of their latest calls."""
    try:
        calls = trace(network, torch.empty(1, *shape, device="meta"))
    except (RuntimeError, AssertionError) as error:
        message, *_ = str(error).split("\n")
        raise ValueError(
            f"this {type(network).__name__} cannot take an image of {' x '.join(map(str, shape))} "
            f"({message}); say which it takes: shape=(channels, height, width)"
        ) from error
    areas = dict[str, int]()
    for call in calls:
        if isinstance(call.module, _LAYERS) and call.output is not None:
            areas.pop(call.path, None)
            maps = call.output[2:] if isinstance(call.module, nn.Conv2d) else call.output[1:-1]
            areas[call.path] = math.prod(maps)
    return areas


class _Parts:
    """A network split into `units`, each of which works at one scale, with the order of its first call."""

    def __init__(
        self, network: nn.Module, areas: Mapping[str, int], heads: Sequence[str], there: Collection[str]
    ):
        self.layers, self.sizes, self.heads, self.there = layers_of(network), [*areas.values()], heads, there
        self.inside, self.calls = defaultdict[str, list[str]](list), defaultdict[str, list[int]](list)
        for path in self.layers:
            self.inside[path.rpartition(".")[0]].extend([path] * bool(path))
        for place, name in enumerate(areas):
            for path in _around(name):
                self.calls[path].append(place)
        self.opened = {path for head in heads for path in _around(head)}
        self.units: list[tuple[int, str]] = []
        self.unused: list[str] = []
        self._visit("")

    def areas(self, path: str) -> list[int]:
        return [self.sizes[place] for place in self.calls[path]]

    def _visit(self, path: str) -> None:
        # what is never called itself (a norm, a parameter on its own) belongs to what is defined before it
        before = self.units[-1][0] if self.units else 0
        if path in self.heads:
            return
        if path in self.opened or self._is_mixed(path):
            own = [name for name, _ in self.layers[path].named_parameters(recurse=False)]
            self.units += [(before, f"{path}.{name}".lstrip(".")) for name in own]
            for child in self.inside[path]:
                self._visit(child)
        elif self.calls[path]:
            self.units.append((self.calls[path][0], path))
        elif any(isinstance(inner, _LAYERS) for inner in self.layers[path].modules()):
            self.unused.append(path)
        elif path in self.there:
            self.units.append((before, path))

    def _is_mixed(self, path: str) -> bool:
        """Whether it is a loop over parts of several scales, or nearly the whole network."""
        areas = [_put_out(own) for child in self.inside[path] if (own := self.areas(child))]
        differ = bool(areas) and max(areas) >= 2 * min(areas)
        loop = isinstance(self.layers[path], nn.Sequential | nn.ModuleList | nn.ModuleDict)
        return differ and (loop or len(self.calls[path]) > 0.75 * len(self.sizes))


def _put_out(areas: Sequence[int]) -> int:
    """The area of the maps at the end; single places on the way are squeeze-and-excitation's."""
    return next((area for area in reversed(areas) if area > 1), 1)


def _covering(paths: Collection[str], names: Sequence[str]) -> str:
    """The shortest pattern that fits, of these names, those within the paths and no others."""
    mine = [name for name in names if any(path in paths for path in _around(name))]
    own, all_ = (Counter(path for name in some for path in _around(name) if path) for some in (mine, names))
    outermost = [next(path for path in _around(name) if own[path] == all_[path] > 0) for name in mine]
    return "|".join(re.escape(path) + ("$" if path in names else r"\.") for path in dict.fromkeys(outermost))
