"""The calls of all modules in a forward pass: shapes, multiply-adds, memory kept for the backward pass."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import InitVar, dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from fulgurite.probes.frozen_eval import device_of, frozen_eval
from fulgurite.probes.meta_copy import meta_copy
from fulgurite.probes.record import bare, layers_of


@dataclass(frozen=True)
class Call:
    """One call of a module; what it costs includes the calls inside it.

    Attributes:
        path: the module's path; `""` is the network.
        module: the module itself; of a trace on the meta device, its copy there.
        begun: its place among all calls, in the order in which they begin.
        inputs: the shapes of the tensors that it takes in.
        outputs: the shapes of the tensors that it outputs.
        output: that of its output, where it is one tensor; else None.
        saved_bytes: what autograd keeps for the backward pass: the memory of tensors that no earlier call
            has kept already, less that of parameters and buffers.
        multiply_adds: of convolutions, linear layers and other matrix products. Pointwise operations
            (activations, normalisation, pooling) count 0, as do those that `torch.utils.flop_counter` does
            not support, such as a recurrent layer that a CPU runs as one.
    """

    path: str
    module: nn.Module
    begun: int
    inputs: tuple[torch.Size, ...]
    outputs: tuple[torch.Size, ...]
    output: torch.Size | None
    saved_bytes: int
    multiply_adds: int


@dataclass(frozen=True)
class Cost:
    """What all calls of a layer cost together."""

    calls: int
    saved_bytes: int
    multiply_adds: int


def trace(
    network: nn.Module, images: Float[Tensor, "n c h w"], learning: Sequence[nn.Parameter] | None = None
) -> list[Call]:
    """The calls of all modules in one pass, in eval mode, in the order in which they end.

    Inner calls come before the call that contains them; the network's own is the last. Memory of autograd is
    that of a training step, with the parameters that require a gradient at the call. On images of the meta
    device, only shapes are computed, on a copy, without memory; only what a device's own kernels keep besides
    (a convolution's workspace, statistics of BatchNorm) may then differ. `learning` are the parameters that
    will require a gradient in training, where the frozen network does not show it.
    """
    network = meta_copy(network) if images.is_meta else network
    if learning is None:
        learning = [own for own in bare(network).parameters() if own.requires_grad]
    with frozen_eval(network) as net, ExitStack() as stack:
        for own in learning:
            own.requires_grad_(True)
        running = _Running(net)
        stack.enter_context(saved_tensors_hooks(running.save, lambda kept: kept))
        # of the counter's own hooks, on parts that are compiled, which run eagerly here
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Using `torch.compile")
        running.flops = stack.enter_context(FlopCounterMode(display=False))
        for path, module in layers_of(net).items():
            enter, leave = partial(running.enter, path), partial(running.leave, path)
            stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        net(images.to(device_of(net)))
    calls = running.calls
    running.release()
    return calls


def by_layer(calls: Sequence[Call]) -> dict[str, Cost]:
    """What each layer costs, all of its calls together, in the order of their first calls."""
    costs: dict[str, Cost] = {}
    for call in sorted(calls, key=lambda call: call.begun):
        known = costs.get(call.path, Cost(0, 0, 0))
        costs[call.path] = Cost(
            known.calls + 1,
            known.saved_bytes + call.saved_bytes,
            known.multiply_adds + call.multiply_adds,
        )
    return costs


@dataclass
class _Open:
    """A call that has begun."""

    begun: int
    inputs: tuple[torch.Size, ...]
    flops: int
    saved_bytes: int = 0


@dataclass
class _Running:
    network: InitVar[nn.Module]
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self, network: nn.Module) -> None:
        self.flops: FlopCounterMode | None = None
        self.open: list[_Open] = []
        self.begun = 0
        # each storage once; held, so that none is freed and its address reused
        own = [*network.parameters(), *network.buffers()]
        self.kept: dict[int, UntypedStorage | Tensor] = {
            id(storage): storage for storage in [tensor.untyped_storage() for tensor in own]
        }

    def release(self) -> None:
        """Drop the reference to the network: autograd may keep the saving hook, and all that it refers to."""
        self.calls, self.kept = [], {}

    def save(self, tensor: Tensor) -> Tensor:
        # sparse tensors have no storage: each counts as if it were dense
        dense = tensor.layout == torch.strided
        memory = tensor.untyped_storage() if dense else tensor
        if id(memory) not in self.kept:
            self.kept[id(memory)] = memory
            for call in self.open:
                call.saved_bytes += len(memory) if dense else tensor.numel() * tensor.element_size()
        return tensor

    def total(self) -> int:
        assert self.flops is not None
        return self.flops.get_total_flops()

    def enter(self, _path: str, _: nn.Module, args: tuple, kwargs: Mapping[str, object]) -> None:
        inputs = tuple(tensor.shape for tensor in _tensors((args, kwargs)))
        self.open.append(_Open(self.begun, inputs, self.total()))
        self.begun += 1

    def leave(self, path: str, module: nn.Module, _: tuple, __: object, out: object) -> None:
        call = self.open.pop()
        self.calls.append(
            Call(
                path,
                module,
                call.begun,
                call.inputs,
                tuple(tensor.shape for tensor in _tensors(out)),
                out.shape if isinstance(out, Tensor) else None,
                call.saved_bytes,
                (self.total() - call.flops) // 2,
            )
        )


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
