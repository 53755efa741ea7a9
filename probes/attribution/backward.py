"""DeConvNet, guided backpropagation and related backward rules for ReLU and max-pooling."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from fulgurite.probes.attribution.autograd_graph import kind, nodes_of
from fulgurite.probes.attribution.gradient import checked, gradients, objective_sums_and_outputs
from fulgurite.probes.attribution.rectifications import (
    computed_factors,
    constants_of,
    counted,
    is_relu,
    on_the_way,
    others,
    unknown_factors,
)
from fulgurite.probes.attribution.untracked_steps import HiddenSteps, known_steps, remember_steps
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import Objectives, squeeze_single

ReluRule = Literal["salinet", "deconvnet", "desalinet"]
PoolRule = Literal["switches", "centre"]

_SEED = 1412_6806  # of images that nobody else draws
_NAMES = {"desalinet": "guided backpropagation", "deconvnet": "DeConvNet", "salinet": "SaliNet"}


class KeptGradients(UserWarning):
    """Steps of a network kept their own gradient, and one of them may be a ReLU spelt otherwise."""


def backward_rules(
    network: nn.Module,
    images: Float[Tensor, "n c h w"],
    objective: Objectives,
    *,
    relu: ReluRule = "desalinet",
    pool: PoolRule = "switches",
) -> Float[Tensor, "*k n c h w"]:
    """The gradient of the objective with other rules for ReLUs and max-pooling in the backward pass, signed.

    Mahendran & Vedaldi 2016, arxiv.org/abs/1603.04871, after Simonyan et al. 2014, Zeiler & Fergus 2014 and
    Springenberg et al. 2015. Exact on ReLUs however they are written: modules, functions, in place, reused,
    on a branch, ReLU6, thresholds and clamps at 0. LeakyReLU, SiLU and the like keep their gradient; a
    warning counts them, and with them what may hide a ReLU from autograd, see `HiddenSteps`: choices in
    Python, detached terms, writes into `.data`. Costs a forward and a backward pass; those steps are looked
    for in the first pass of a network.

    Args:
        network: maps images to logits.
        images: in [0, 1].
        objective: a number per image, or several objectives; a `unit` explains one neuron.
        relu: what a ReLU passes back: the gradient where its input is positive ("salinet", plain
            backpropagation), where the gradient is ("deconvnet"), or where both are ("desalinet", which is
            guided backpropagation).
        pool: whether max-pooling passes back to where the maximum was ("switches") or to its window's centre.

    Raises:
        ValueError: the network has no ReLU on its way from image to output, where only plain backpropagation
            can be done; or a part of it hides its ReLUs.
    """
    if relu not in ("salinet", "deconvnet", "desalinet") or pool not in ("switches", "centre"):
        raise ValueError(
            f'relu={relu!r}, pool={pool!r}; wanted relu "salinet", "deconvnet" or "desalinet", '
            'and pool "switches" or "centre"'
        )
    with frozen_eval(network) as net, ExitStack() as hooks:
        pixels = checked(images).clone().requires_grad_()
        before = constants_of(net)
        steps = known_steps(net)
        hidden = HiddenSteps(pixels) if relu != "salinet" and steps is None else None
        scores, nodes, inside = _graph(net, pixels, objective, hidden)
        _check_open(nodes)
        if hidden is not None:
            remember_steps(net, steps := hidden.found)
        if relu != "salinet":
            found = others(inside)
            places, written = unknown_factors(net, before, inside)
            found += written + (steps or Counter())
            if places:
                noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(_SEED)).to(pixels)
                elsewhere = _graph(net, noise.requires_grad_(), objective)[2]
                found += computed_factors(inside, elsewhere, places)
            _check_relus(nodes, on_the_way(scores), found, relu)
        for node in nodes:
            if rule := _rule(node, relu, pool):
                hooks.callback(node.register_hook(rule).remove)
        return squeeze_single(gradients(scores, pixels), objective)


def guided_backprop(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objectives
) -> Float[Tensor, "*k n c h w"]:
    """The gradient with negative parts dropped at every ReLU in the backward pass, signed at the pixels.

    Springenberg et al. 2015, arxiv.org/abs/1412.6806. Errors and cost as for `backward_rules`.
    """
    return backward_rules(network, images, objective, relu="desalinet")


def deconvnet(
    network: nn.Module, images: Float[Tensor, "n c h w"], objective: Objectives
) -> Float[Tensor, "*k n c h w"]:
    """The gradient as a deconvolutional network has it: ReLUs in the backward pass instead of masks, signed.

    Zeiler & Fergus 2014, arxiv.org/abs/1311.2901. Errors and cost as for `backward_rules`.
    """
    return backward_rules(network, images, objective, relu="deconvnet")


def _rule(node: Node, relu: ReluRule, pool: PoolRule) -> Callable[[tuple, tuple], tuple] | None:
    if relu != "salinet" and is_relu(node):
        return _guided if relu == "desalinet" else _deconvolved
    if pool == "centre" and kind(node) in ("MaxPool2DWithIndices", "AdaptiveMaxPool2D"):
        return _Centred(node)
    return None


def _guided(into: tuple, _: tuple) -> tuple:
    # of two that are compared, one gets no gradient
    return tuple(None if grad is None else grad.clamp(min=0) for grad in into)


def _deconvolved(into: tuple, out: tuple) -> tuple:
    return tuple(None if grad is None else out[0].clamp(min=0) for grad in into)


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
    opaque = Counter(
        kind(node) for node in nodes if isinstance(node, torch.autograd.function.BackwardCFunction)
    )
    if opaque:
        raise ValueError(
            f"{counted(opaque)} hides from autograd what is inside, and there may be ReLUs; build the "
            "network without it (checkpointing: use_reentrant=False; torch.compile: give the module itself)"
        )


def _check_relus(nodes: Iterable[Node], relus: int, unchanged: Counter[str], rule: ReluRule) -> None:
    if not relus:
        aside = " but in gates and global contexts" * any(is_relu(node) for node in nodes)
        raise ValueError(
            f"{_NAMES[rule]}: no ReLU on the way from the image to the output{aside}, where there "
            f"is {counted(unchanged) or 'no activation'}; the {rule} rule would change nothing; wanted a "
            'network with ReLUs, or relu="salinet"; if it has a ReLU spelt otherwise, write it as F.relu'
        )
    if unchanged:
        warnings.warn(
            f"{_NAMES[rule]}: the {rule} rule holds at {relus} ReLUs; {counted(unchanged)} kept their own "
            "gradient; if one of them is a ReLU spelt otherwise, write it as F.relu",
            KeptGradients,
            stacklevel=4,
        )


def _graph(
    network: nn.Module, pixels: Tensor, objective: Objectives, watch: AbstractContextManager | None = None
) -> tuple[list[Tensor], list[Node], list[Node]]:
    """The scores, the steps back from them, and which of these steps belong to the network."""
    scripted = any(isinstance(part, torch.jit.ScriptModule) for part in network.modules())
    with watch if watch is not None and not scripted else nullcontext():
        scores, read = objective_sums_and_outputs(network, pixels, objective)
    if any(node.name().endswith("CopySlices") for node in nodes_of(scores)):
        # a ReLU in place on a view hides in there: run it as a copy
        if scripted:
            raise ValueError(
                "TorchScript writes into a view, where a ReLU may hide; give the network it was made from"
            )
        with _CopiedIntoViews():
            scores, read = objective_sums_and_outputs(network, pixels, objective)
    return scores, nodes_of(scores), nodes_of(read)


# what ends in _ and changes what a tensor is, not what it holds; a copy is what is wanted
_NO_VALUES = {
    *("as_strided_", "copy_", "detach_", "rename_", "requires_grad_", "resize_", "resize_as_", "set_"),
    *("squeeze_", "swapaxes_", "swapdims_", "t_", "transpose_", "unsqueeze_"),
}


class _CopiedIntoViews(TorchFunctionMode):
    """Steps in place on a view run on a copy, which is copied back: autograd then records them by name."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Call the function, or do the same by a copy."""
        # aten's relu_ is called relu_.default
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", "").partition(".")[0]
        if not args and "input" in kwargs:
            args = (kwargs.pop("input"),)
        if not (args and isinstance(args[0], Tensor) and args[0]._is_view()):
            return function(*args, **kwargs)
        if not (kwargs.get("inplace") or _is_in_place(name)):
            return function(*args, **kwargs)
        apart = args[0].clone()
        function(apart, *args[1:], **kwargs)
        return args[0].copy_(apart)


def _is_in_place(name: str) -> bool:
    """Whether a function of this name writes into its first tensor: relu_, __imul__, __setitem__."""
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}"))
    return name.endswith("_") and name not in _NO_VALUES
