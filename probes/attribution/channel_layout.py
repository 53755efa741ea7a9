"""A layer's output as maps: where its channels are, by what the network does next with them."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from fulgurite.probes.attribution.autograd_graph import children, kind, nodes_of, shape
from fulgurite.probes.channels import channels_last
from fulgurite.probes.record import layer_of
from fulgurite.probes.tokens import token_grid

Axes = tuple[int | None, ...]  # which axes of the layer's output those of a later tensor are

_SPATIAL = {
    *("AdaptiveAvgPool2D", "AdaptiveMaxPool2D", "AvgPool2D", "Convolution", "CudnnBatchNorm"),
    *("MaxPool2DWithIndices", "NativeBatchNorm", "NativeGroupNorm", "ReflectionPad2D", "ReplicationPad2D"),
    *("UpsampleBicubic2D", "UpsampleBilinear2D", "UpsampleNearest2D"),
}
_KEEPING = {"Cat", "ConstantPadNd", "Slice"}  # other sizes, the same axes


def as_maps(
    network: nn.Module, layer: str, leaf: Tensor, scores: Sequence[Tensor], images: Tensor
) -> Callable[[Tensor], Tensor] | None:
    """How a layer's output becomes maps, [..., channels, height, width]; None if it is unknown.

    Of four axes, what the network does next with them (a convolution, a LayerNorm, a linear layer, an
    average) shows where the channels are; if that does not, the layer's parts do (`channels_last`); if those
    do not either, and the second and third fit the image while the last two do not, they are last. Of three,
    see `token_grid`.
    """
    if leaf.dim() == 4:
        last = _channels_last(leaf, scores)
        if last is None:
            last = _last_by_parts(leaf, layer_of(network, layer))
        if last is None:
            last = _fits(leaf.shape[1:3], images) and not _fits(leaf.shape[2:], images)
        return (lambda maps: maps.movedim(-1, -3)) if last else (lambda maps: maps)
    grid = token_grid(network, leaf.shape)
    return None if grid is None else grid.maps


def leaf_of(leaf: Tensor, nodes: Sequence[Node]) -> Node | None:
    """The step at which a graph ends in the leaf; None if it does not."""
    return next((node for node in nodes if getattr(node, "variable", None) is leaf), None)


def _last_by_parts(leaf: Tensor, layer: nn.Module) -> bool | None:
    try:
        return channels_last(leaf, layer)
    except ValueError:  # the size of the image may show it
        return None


def _fits(size: Sequence[int], images: Tensor) -> bool:
    down, across = (-(-side // max(1, cells)) for side, cells in zip(images.shape[2:], size, strict=True))
    return down == across


def _channels_last(leaf: Tensor, scores: Sequence[Tensor]) -> bool | None:
    nodes = nodes_of(scores)
    parents: dict[Node, list[Node]] = {}
    for node in nodes:
        for child in children(node):
            parents.setdefault(child, []).append(node)
    start = leaf_of(leaf, nodes)
    waiting: list[tuple[Node, Axes]] = [] if start is None else [(start, (0, 1, 2, 3))]
    seen: set[Node] = set()
    for node, axes in waiting:  # the nearest first
        for parent in parents.get(node, []):
            if parent in seen:
                continue
            seen.add(parent)
            channels = _channels(parent, axes)
            if channels in (1, 3):
                return channels == 3
            if (after := _after(parent, shape(node), axes)) is not None:
                waiting.append((parent, after))
    return None


def _channels(node: Node, axes: Axes) -> int | None:
    """The axis that a step treats as the channels."""
    saved: Any = node
    what = kind(node)
    if what in _SPATIAL and len(axes) == 4:
        return axes[1]
    if what in ("Addmm", "Mm"):
        return axes[-1]
    if what == "NativeLayerNorm" and len(saved._saved_normalized_shape) == 1:
        return axes[-1]
    if what in ("Mean", "Sum") and len(axes) == 4 and (dims := getattr(node, "_saved_dim", None)):
        kept = {1, 2, 3} - {_signed(dim) % 4 for dim in dims}
        return axes[kept.pop()] if len(kept) == 1 else None
    return None


def _after(node: Node, before: tuple[int, ...], axes: Axes) -> Axes | None:
    """Where the axes are after a step; None if they cannot be followed."""
    what, now = kind(node), shape(node)
    saved: Any = node
    if what == "Permute":
        return tuple(axes[_signed(dim)] for dim in saved._saved_dims)
    if what == "Transpose":
        one, other = (_signed(getattr(saved, f"_saved_dim{k}")) % len(axes) for k in (0, 1))
        swapped = list(axes)
        swapped[one], swapped[other] = axes[other], axes[one]
        return tuple(swapped)
    if now == before or (what in _KEEPING and len(now) == len(before)):
        return axes
    if what in ("View", "UnsafeView", "ReshapeAlias", "Reshape", "Clone") and now[-1] == before[-1]:
        return (*[None] * (len(now) - 1), axes[-1])
    return None


def _signed(dim: int) -> int:
    return dim - (1 << 64) if dim >= 1 << 63 else dim
