"""Detection of ReLUs in autograd's graph, however they are written."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from fulgurite.probes.attribution.autograd_graph import children, kind, reached, shape

# steps that are linear in their input, at fixed switches of max-pooling: none can be a rectification
_LINEAR = {
    *("AccumulateGrad", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AdaptiveMaxPool2D", "Add", "Addbmm"),
    *("Addmm", "Addmv", "Alias", "AsStrided", "AvgPool2D", "AvgPool3D", "Baddbmm", "Bmm", "Cat", "Clone"),
    *("Col2Im", "ConstantPadNd", "Convolution", "CopyBackwards", "CopySlices", "CudnnBatchNorm", "Div"),
    *("Expand", "Flip", "Gather", "GridSampler2D", "Im2Col", "Index", "IndexSelect", "LazyClone"),
    *("MaxPool2DWithIndices", "Mean", "MkldnnConvolution", "Mm", "Mul", "Mv", "NativeBatchNorm", "Neg"),
    *("Permute", "PixelShuffle", "PixelUnshuffle", "ReflectionPad2D", "Repeat", "ReplicationPad2D"),
    *("Reshape", "ReshapeAlias", "Roll", "Rsub", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze"),
    *("Stack", "Sub", "Sum", "T", "ToCopy", "Transpose", "Unbind", "Unfold", "Unsqueeze", "UnsafeSplit"),
    *("UnsafeView", "UpsampleBicubic2D", "UpsampleBilinear2D", "UpsampleNearest2D", "View"),
}
# normalisation, attention, gates and probabilities: smooth, and left to autograd as the papers leave them
_SMOOTH = {
    *("Hardsigmoid", "LogSoftmax", "NativeGroupNorm", "NativeLayerNorm", "Sigmoid", "Softmax"),
    *("ScaledDotProductEfficientAttention", "ScaledDotProductFlashAttention"),
    *("ScaledDotProductFlashAttentionForCpu", "ScaledDotProductCudnnAttention"),
}
# pointwise functions, and the softmax of a map and a constant
_POINTWISE = {
    *(
        "Abs",
        "Add",
        "Cat",
        "Clamp",
        "ClampMin",
        "Clone",
        "Div",
        "Elu",
        "Exp",
        "Expand",
        "Fmax",
        "Hardsigmoid",
    ),
    *("Hardtanh", "LeakyRelu", "Maximum", "Minimum", "Mul", "Neg", "Pow", "Relu", "Reshape", "ReshapeAlias"),
    *("Rsub", "Select", "Sigmoid", "Softmax", "Squeeze", "Stack", "Sub", "Tanh", "Threshold", "UnsafeView"),
    *("Unsqueeze", "View"),
}
_AFFINE = {
    *("Add", "Cat", "Clone", "Div", "Expand", "Mul", "Neg", "Reshape", "ReshapeAlias", "Rsub", "Select"),
    *("Squeeze", "Stack", "Sub", "UnsafeView", "Unsqueeze", "View"),
}
_GATES = {"Sigmoid", "Hardsigmoid", "Softmax", "Tanh"}
# what may lie between a gate's sigmoid and the product, with one tensor in
_RESHAPED = {
    *("Add", "Clone", "Div", "Expand", "Mul", "Permute", "Reshape", "ReshapeAlias", "Select", "Split"),
    *("SplitWithSizes", "Squeeze", "Transpose", "Unbind", "Unsqueeze", "UnsafeView", "View"),
    *("UpsampleBilinear2D", "UpsampleNearest2D"),
}
# what autograd keeps of the other factor of a product, and of the places that were picked
_FACTORS = {
    "Mul": ("other", "self"),
    "Div": ("other",),
    "Mm": ("self", "mat2"),
    "Bmm": ("self", "mat2"),
    "Gather": ("index",),
    "IndexSelect": ("index",),
    "Index": ("indices",),
    "Convolution": ("weight",),
    "NativeBatchNorm": ("weight",),
}


def is_relu(node: Node) -> bool:
    """Whether the step is the backward of max(x, 0), also with an upper limit."""
    saved: Any = node
    match kind(node):
        case "Relu":
            return True
        case "Threshold":
            return float(saved._saved_threshold) == 0
        case "LeakyRelu":
            return float(saved._saved_negative_slope) == 0
        case "Hardtanh":
            return float(saved._saved_min_val) == 0
        case "Clamp" | "ClampMin":
            return _of_one(node) and _is_zero(saved._saved_min)
        case "Maximum" | "Fmax":
            if not _of_one(node):
                return False
            return _is_zero(saved._saved_self if node.next_functions[0][0] is None else saved._saved_other)
    return False


def on_the_way(scores: Iterable[Tensor]) -> int:
    """The number of ReLUs between image and output, without gates and global contexts."""
    return sum(is_relu(node) for node in reached([score.grad_fn for score in scores], _ungated))


def others(nodes: Iterable[Node]) -> Counter[str]:
    """The steps that are not known to rectify nothing, and are no ReLUs either, counted by kind."""
    kept = Counter[str]()
    for node in nodes:
        what = kind(node)
        if _is_other(node):
            kept[what] += 1
        elif what in ("Mul", "Add", "Sub") and _is_of_itself(node):
            kept[f"{what} of a map and a function of the same map"] += 1
        elif what.startswith(("MaxPool", "AdaptiveMaxPool")) and _is_with_constants(node):
            kept[f"{what} of a map and constants"] += 1
    return kept


def _is_other(node: Node) -> bool:
    return kind(node) not in _LINEAR and not _is_smooth(node) and not is_relu(node)


def _is_of_itself(node: Node) -> bool:
    """Whether a product or sum is of a map and an activation of the same map: a swish, or `x + relu(-x)`.

    Not where the activation is counted on its own.
    """
    sides = [_pointwise(edge) for edge in node.next_functions if edge[0] is not None]
    if len(sides) != 2:
        return False
    activations = [side[edge] for edge in sides[0].keys() & sides[1].keys() for side in sides]
    return any(steps and not any(map(_is_other, steps)) for steps in activations)


def _pointwise(edge: tuple[Node | None, int]) -> dict[tuple[Node, int], tuple[Node, ...]]:
    """The maps that a map is a pointwise function of, each with the steps between that are not affine."""
    found: dict[tuple[Node, int], tuple[Node, ...]] = {}
    node, place = edge
    steps: tuple[Node, ...] = ()
    while node is not None:
        found[node, place] = steps
        below = [one for one in node.next_functions if one[0] is not None]
        if len(below) != 1 or (what := kind(node)) not in _POINTWISE:
            break
        steps = steps if what in _AFFINE else (*steps, node)
        node, place = below[0]
    return found


def _is_with_constants(node: Node) -> bool:
    """Whether a pooling is over a map and constants that were concatenated to it."""
    while (below := children(node)) and len(below) == 1:
        node = below[0]
        if kind(node) in ("Cat", "Stack"):
            return any(child is None for child, _ in node.next_functions)
        if kind(node) not in _AFFINE:
            return False
    return False


def constants_of(network: nn.Module) -> dict[int, int]:
    """Where the weights and buffers of a network are, and how often each was written."""
    return {
        tensor.untyped_storage().data_ptr(): 0 if tensor.is_inference() else tensor._version
        for tensor in (*network.parameters(), *network.buffers())
        if tensor.layout is torch.strided
    }


def unknown_factors(
    network: nn.Module, before: Mapping[int, int], nodes: Sequence[Node]
) -> tuple[list[int], Counter[str]]:
    """Factors that autograd treats as constants and are no weights or buffers, or were written in the pass.

    A factor may be a mask, as in `x * (x > 0)`; then it differs from image to image, see `computed_factors`.
    That is certain of weights and buffers written since the pass began, when `constants_of` the network were
    `before`.
    """
    now = constants_of(network)
    own = {place for place, version in before.items() if now.get(place) == version}
    unknown, written = list[int](), Counter[str]()
    for number, node in enumerate(nodes):
        places = {factor.untyped_storage().data_ptr() for factor in _factors(node)} - own
        if places & now.keys():
            written[f"{kind(node)} by what is computed from the image"] += 1
        elif places:
            unknown.append(number)
    return unknown, written


def computed_factors(here: Sequence[Node], there: Sequence[Node], places: Iterable[int]) -> Counter[str]:
    """The steps at `places` whose factors differ for other images, whose steps are `there`."""
    if [kind(node) for node in here] != [kind(node) for node in there]:
        return Counter(["step that another image does not take"])
    return Counter(
        f"{kind(here[place])} by what is computed from the image"
        for place in places
        if not all(
            one.shape == other.shape and torch.equal(one, other)
            for one, other in zip(_factors(here[place]), _factors(there[place]), strict=True)
        )
    )


def counted(found: Counter[str]) -> str:
    """The counts in words, the largest first."""
    return ", ".join(f"{count} x {what}" for what, count in found.most_common())


def _is_smooth(node: Node) -> bool:
    saved: Any = node
    power = saved._saved_exponent if kind(node) == "Pow" else None
    # whole powers can make no kink without a root, which has its own name
    return kind(node) in _SMOOTH or (
        isinstance(power, int | float) and power > 0 and float(power).is_integer()
    )


def _of_one(node: Node) -> bool:
    """Whether one of the tensors that were compared depends on the image, and has the shape of the result."""
    connected = [(child, place) for child, place in node.next_functions if child is not None]
    return len(connected) == 1 and shape(connected[0][0], connected[0][1]) == shape(node)


def _is_zero(bound: float | Tensor | None) -> bool:
    if isinstance(bound, Tensor):
        return not bool(bound.any())
    return bound is not None and float(bound) == 0


def _factors(node: Node) -> Iterator[Tensor]:
    names = _FACTORS.get(kind(node), ())
    if names and len(children(node)) == 1:
        for name in names:
            kept = getattr(node, f"_saved_{name}", None)
            for one in kept if isinstance(kept, list | tuple) else (kept,):
                if isinstance(one, Tensor) and one.numel() > 1:
                    yield one


def _ungated(node: Node) -> list[Node]:
    """The steps before a step, without the gate of a product and without a term constant over positions."""
    below = children(node)
    if kind(node) == "Mul" and len(below) > 1:
        return [child for child in below if not _is_gate(child, set(below) - {child})] or below
    if kind(node) == "Add" and len(below) > 1 and len(maps := shape(node)) == 4 and maps[2] * maps[3] > 1:
        # a global context, as in GCNet: one value for a channel, at every place
        return [child for child, place in node.next_functions if child and shape(child, place)[-2:] != (1, 1)]
    return below


def _is_gate(node: Node, others: set[Node]) -> bool:
    node, scaled = _past(node)
    # a hard sigmoid may be spelt relu6(x + 3) / 6, and a hard swish x * relu6(x + 3) / 6
    own = kind(node) == "Hardtanh" and any(_past(child)[0] in others for child in children(node))
    return kind(node) in _GATES or (kind(node) == "Hardtanh" and scaled) or own


def _past(node: Node) -> tuple[Node, bool]:
    """What lies before some reshaping, shifting and scaling, and whether there was any scaling."""
    scaled = False
    while (what := kind(node)) in _RESHAPED and len(below := children(node)) == 1:
        node, scaled = below[0], scaled or what in ("Mul", "Div")
    return node, scaled
