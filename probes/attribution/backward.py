"""Gradients with other rules for ReLUs and max-pooling: DeConvNet, guided backpropagation and between."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from fulgurite.probes.attribution.gradient import checked, slopes, summed
from fulgurite.probes.borrow import borrowed
from fulgurite.probes.objectives import Asked, answered

ReluRule = Literal["salinet", "deconvnet", "desalinet"]
PoolRule = Literal["switches", "centre"]

_OTHERS = {
    *("Celu", "Elu", "Gelu", "Glu", "Hardswish", "Hardtanh", "LeakyRelu", "LogSigmoid", "Mish", "Prelu"),
    *("PreluKernel", "Rrelu", "Silu", "Softplus", "Tanh", "Threshold"),
    *("Maximum", "Minimum", "MaskedFill", "Where"),
}
_NAMES = {"desalinet": "guided backpropagation", "deconvnet": "DeConvNet", "salinet": "SaliNet"}
_GATES = {"Sigmoid", "Hardsigmoid", "Softmax", "Tanh"}
# what may lie between a gate's sigmoid and the product, with one tensor in
_RESHAPED = {
    *("Add", "Clone", "Div", "Expand", "Mul", "Permute", "Reshape", "ReshapeAlias", "Select", "Split"),
    *("SplitWithSizes", "Squeeze", "Transpose", "Unbind", "Unsqueeze", "UnsafeView", "View"),
    *("UpsampleBilinear2D", "UpsampleNearest2D"),
}


def backward_rules(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Asked,
    *,
    relu: ReluRule = "desalinet",
    pool: PoolRule = "switches",
) -> Float[Tensor, "*k n c h w"]:
    """The gradient of the objective with other rules for ReLUs and max-pooling on the way back, signed.

    Mahendran & Vedaldi 2016, arxiv.org/abs/1603.04871, after Simonyan et al. 2014, Zeiler & Fergus 2014 and
    Springenberg et al. 2015. Exact on ReLUs however they are spelt: modules, functions, in place, reused, on
    a branch, ReLU6, thresholds and clamps at 0. LeakyReLU, SiLU and the like keep their gradient; a warning
    counts them. Costs a forward and a backward pass.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        objective: a number per image, or several objectives; a `unit` shows what one neuron sees.
        relu: what a ReLU passes back: the gradient where its input is positive ("salinet", plain
            backpropagation), where the gradient is ("deconvnet"), or where both are ("desalinet", which is
            guided backpropagation).
        pool: whether max-pooling passes back to where the maximum was ("switches") or to its window's centre.

    Raises:
        ValueError: the network has no ReLU on its way from image to answer, where only plain backpropagation
            can be done; or a part of it hides its ReLUs.
    """
    if relu not in ("salinet", "deconvnet", "desalinet") or pool not in ("switches", "centre"):
        raise ValueError(
            f'relu={relu!r}, pool={pool!r}; wanted relu "salinet", "deconvnet" or "desalinet", '
            'and pool "switches" or "centre"'
        )
    with borrowed(network) as net, ExitStack() as hooks:
        pixels = checked(images).clone().requires_grad_()
        scores = summed(net, pixels, objective)
        nodes = nodes_of(scores)
        if any(node.name().endswith("CopySlices") for node in nodes):
            # a ReLU in place on a view hides in there: run it as a copy
            if any(isinstance(part, torch.jit.ScriptModule) for part in net.modules()):
                raise ValueError(
                    "TorchScript writes into a view, where a ReLU may hide; give the network it was made from"
                )
            with _CopiedIntoViews():
                scores = summed(net, pixels, objective)
            nodes = nodes_of(scores)
        _check_open(nodes)
        if relu != "salinet":
            _check_relus(nodes, scores, relu)
        for node in nodes:
            if rule := _rule(node, relu, pool):
                hooks.callback(node.register_hook(rule).remove)
        return answered(slopes(scores, pixels), objective)


def guided_backprop(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Asked
) -> Float[Tensor, "*k n c h w"]:
    """The gradient with negative parts dropped at every ReLU on the way back, signed at the pixels.

    Springenberg et al. 2015, arxiv.org/abs/1412.6806. Errors and cost as for `backward_rules`.
    """
    return backward_rules(network, images, objective, relu="desalinet")


def deconvnet(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Asked
) -> Float[Tensor, "*k n c h w"]:
    """What a deconvolutional network makes of the answer: ReLUs on the way back instead of masks, signed.

    Zeiler & Fergus 2014, arxiv.org/abs/1311.2901. Errors and cost as for `backward_rules`.
    """
    return backward_rules(network, images, objective, relu="deconvnet")


def nodes_of(scores: Iterable[Tensor]) -> list[Node]:
    """Every step that autograd will take back from the scores."""
    return list(_reached([score.grad_fn for score in scores], lambda node: children(node)))


def children(node: Node) -> list[Node]:
    """The steps that a step passes its gradient on to."""
    return [child for child, _ in node.next_functions if child is not None]


def kind(node: Node) -> str:
    """What a step undoes: `Relu`, `Convolution`, `MaxPool2DWithIndices` ..."""
    return node.name().rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")


def _reached(starts: Iterable[Node | None], onwards: Callable[[Node], Iterable[Node]]) -> dict[Node, None]:
    found: dict[Node, None] = {}
    waiting = [node for node in starts if node is not None]
    while waiting:
        if (node := waiting.pop()) not in found:
            found[node] = None
            waiting += onwards(node)
    return found


def _is_relu(node: Node) -> bool:
    saved: Any = node
    what = kind(node)
    if what == "Threshold":
        return float(saved._saved_threshold) == 0
    if what == "Hardtanh":
        return float(saved._saved_min_val) == 0
    if what in ("Clamp", "ClampMin"):
        low = saved._saved_min
        return low is not None and not (isinstance(low, Tensor) and low.numel() > 1) and float(low) == 0
    return what == "Relu"


def _rule(node: Node, relu: ReluRule, pool: PoolRule) -> Callable[[tuple, tuple], tuple] | None:
    if relu != "salinet" and _is_relu(node):
        return _guided if relu == "desalinet" else _deconvolved
    if pool == "centre" and kind(node) in ("MaxPool2DWithIndices", "AdaptiveMaxPool2D"):
        return _Centred(node)
    return None


def _guided(into: tuple, _: tuple) -> tuple:
    return (into[0].clamp(min=0), *into[1:])


def _deconvolved(into: tuple, out: tuple) -> tuple:
    return (out[0].clamp(min=0), *into[1:])


class _Centred:
    """Passes back to the middle of each window of a max-pooling; of four, to the lower right."""

    def __init__(self, node: Node):
        self.window = None
        if kind(node) == "MaxPool2DWithIndices":
            names = ("kernel_size", "stride", "padding", "dilation")
            kernel, stride, padding, dilation = (tuple(getattr(node, f"_saved_{name}")) for name in names)
            self.window = [_pair(values) for values in (kernel, stride or kernel, padding, dilation)]

    def __call__(self, into: tuple, out: tuple) -> tuple:
        passed = out[0]
        for axis in (2, 3):
            middles = self._middles(axis - 2, into[0].shape[axis], out[0].shape[axis]).to(passed.device)
            shape = [*passed.shape[:axis], into[0].shape[axis], *passed.shape[axis + 1 :]]
            passed = passed.new_zeros(shape).index_add_(axis, middles, passed)
        return (passed, *into[1:])

    def _middles(self, axis: int, side: int, count: int) -> Int[Tensor, "count"]:
        places = torch.arange(count)
        if self.window is None:  # adaptive: windows share the side out
            first, past = places * side // count, -(-(places + 1) * side // count)
            return first + (past - first) // 2
        kernel, stride, padding, dilation = (values[axis] for values in self.window)
        return (places * stride - padding + dilation * (kernel // 2)).clamp(0, side - 1)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return values if len(values) == 2 else (values[0], values[0])  # pyright: ignore[reportReturnType]


def _check_open(nodes: Iterable[Node]) -> None:
    hidden = Counter(
        kind(node) for node in nodes if isinstance(node, torch.autograd.function.BackwardCFunction)
    )
    if hidden:
        raise ValueError(
            f"{_counted(hidden)} hides from autograd what is inside, and there may be ReLUs; build the "
            "network without it (checkpointing: use_reentrant=False; torch.compile: give the module itself)"
        )


def _check_relus(nodes: Iterable[Node], scores: Iterable[Tensor], rule: ReluRule) -> None:
    others = Counter(kind(node) for node in nodes if kind(node) in _OTHERS and not _is_relu(node))
    on_the_way = _reached([score.grad_fn for score in scores], _ungated)
    relus = sum(_is_relu(node) for node in on_the_way)
    if not relus:
        aside = " but in gates" * any(_is_relu(node) for node in nodes)
        raise ValueError(
            f"{_NAMES[rule]}: no ReLU on the way from the image to the answer{aside}, where there is "
            f"{_counted(others) or 'no activation'}; "
            f'the {rule} rule would change nothing; wanted a network with ReLUs, or relu="salinet"'
        )
    if others:
        said = f"the {rule} rule holds at {relus} ReLUs; {_counted(others)} kept their own gradient"
        warnings.warn(f"{_NAMES[rule]}: {said}", stacklevel=4)


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{count} x {what}" for what, count in found.most_common())


def _ungated(node: Node) -> list[Node]:
    """What a step passes back to, but for the gate, where a product of two is gated by one of them."""
    below = children(node)
    if kind(node) == "Mul" and len(below) > 1:
        return [child for child in below if not _is_gate(child, set(below) - {child})] or below
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


_IN_PLACE = ("relu", "relu6", "threshold", "hardtanh", "clamp", "clamp_min", "clip")


class _CopiedIntoViews(TorchFunctionMode):
    """Activations in place on a view are computed apart and copied into it: autograd then names them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Do as asked, or the same by a copy."""
        # aten's relu_ is called relu_.default
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", "").partition(".")[0]
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        if args and isinstance(args[0], Tensor) and args[0]._is_view():
            apart = (args[0].clone(), *args[1:])  # what autograd keeps of it must not be written to
            if kwargs.get("inplace"):
                return args[0].copy_(function(*apart, **{**kwargs, "inplace": False}))
            if name.endswith("_") and (plain := name[:-1]) in _IN_PLACE:
                return args[0].copy_((getattr(torch, plain, None) or getattr(F, plain))(*apart, **kwargs))
        return function(*args, **kwargs)
