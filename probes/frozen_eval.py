"""A context manager for a network in eval mode with frozen parameters, restored exactly afterwards."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fulgurite.probes.device_sync import AT_HAND
from fulgurite.probes.private_state import restored
from fulgurite.probes.record import bare, eager

SMALL, MANY = 36, 256
"""Positions of maps up to which, and channels from which on, convolutions are faster with channels first."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def frozen_eval(
    network: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels_last: bool = False,
    modes: Literal["eval", "unchanged"] = "eval",
) -> Iterator[nn.Module]:
    """Within the block the unwrapped network is in eval mode, with frozen parameters and gradients on.

    It takes images of any precision and gives float32; float64, if it and the images are.

    At its end, also after an exception, everything is restored: train and eval mode of each module,
    `requires_grad` and `.grad` of each parameter, buffers, hooks, the random states of torch, numpy and
    Python, and other state of modules: generators, counters, lists (`restored`). It works under
    `inference_mode` and autocast, which it suspends, and on a network compiled or wrapped for distributed
    training.

    Args:
        network: maps images to logits.
        mean: if the network expects normalised images, their mean per channel: it then takes images in [0,
            1].
        std: their standard deviation per channel.
        channels_last: use this memory format for convolutions on a CPU within the block: many passes then
            take 50 to 90 % of their time, and outputs differ by rounding. It does not pay for one pass.
        modes: "unchanged" leaves each module in train or eval mode, as it was.
    """
    network = bare(network)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if device_of(network).type != "meta":
            stack.enter_context(torch.autocast(device_of(network).type, enabled=False))
        stack.enter_context(eager())
        stack.enter_context(same_randomness(device_of(network)))
        stack.enter_context(restored(network))
        stack.enter_context(_frozen(network, modes))
        if channels_last and device_of(network).type == "cpu":
            stack.enter_context(_channels_last(network))
        input_dtypes: list[torch.dtype] = []
        hooks = [network.register_forward_pre_hook(_prepare(network, mean, std, input_dtypes))]
        if dtype_of(network) != torch.float32:
            hooks.append(network.register_forward_hook(_match_dtype(input_dtypes)))
        try:
            yield network
        finally:
            for hook in hooks:
                hook.remove()


def device_of(network: nn.Module) -> torch.device:
    """The device of the network's parameters; the CPU if it has none."""
    return next((tensor.device for tensor in network.parameters()), torch.device("cpu"))


def dtype_of(network: nn.Module) -> torch.dtype:
    """The dtype of the network's first parameter; float32 if it has none."""
    return next((tensor.dtype for tensor in network.parameters()), torch.float32)


@contextmanager
def same_randomness(device: torch.device) -> Iterator[None]:
    """Random states of torch (CPU and `device`), numpy and Python are the same after the block as before."""
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002 - other people's global state
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)


@contextmanager
def _frozen(network: nn.Module, mode_kind: str) -> Iterator[None]:
    # runs at every probe, and can cost as much as a layer: one walk, which skips what is already right
    modules = list(network.modules())
    modes = [getattr(module, "training", None) for module in modules]  # frozen TorchScript has none
    hooks = [getattr(module, name) for module in modules for name in _HOOKS]
    hooked = [frozenset(own) for own in hooks]
    # a network that was saved whole brings hooks under another process's numbers: new hooks take others
    largest = max(chain.from_iterable(hooked), default=-1)
    RemovableHandle.next_id = max(RemovableHandle.next_id, largest + 1)
    named = [(own, dict(own)) for module in modules if isinstance(own := module._buffers, dict) and own]
    parameters = [(p, p.requires_grad, p.grad) for p in dict.fromkeys(_own(modules, "_parameters"))]
    buffers = _Buffers(b for b in dict.fromkeys(_own(modules, "_buffers")) if not b.is_meta)
    for module, mode in zip(modules, modes, strict=True):
        # not by eval(): exported networks raise, others do more than set a flag
        if mode and mode_kind == "eval":
            module.training = False
    for parameter, wanted, grad in parameters:
        if wanted:
            parameter.requires_grad_(False)
        if wanted and grad is not None:
            # a backward pass within the block adds to this one; copied only then
            parameter.grad = torch._lazy_clone(grad)  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            if mode is not None and module.training is not mode:
                module.training = mode
        for own, before in named:
            own.update(before)
        for own, before in zip(hooks, hooked, strict=True):
            if own:
                for key in [key for key in own if key not in before]:
                    del own[key]
        for parameter, wanted, grad in parameters:
            if parameter.requires_grad is not wanted:
                parameter.requires_grad_(wanted)
            if parameter.grad is not grad:
                parameter.grad = grad
        buffers.restore()


class _Buffers:
    """Copies of buffers, to restore those that were written to.

    On a CPU each is compared with its copy. Comparing on a GPU would wait for it once per buffer: there all
    are written back together, in few kernels, without raising version counters, which autograd graphs with a
    saved buffer check. Counters do not show what was written: BatchNorm, and writes through `.data`, raise
    none; and a copy on write would move a buffer to an address that a CUDA graph does not use.
    """

    def __init__(self, buffers: Iterable[Tensor]):
        self.compared, self.written = list[tuple[Tensor, Tensor]](), defaultdict[torch.device, list](list)
        for buffer in buffers:
            if buffer.device.type in AT_HAND or type(buffer) is not Tensor or buffer.is_inference():
                self.compared.append((buffer, buffer.detach().clone()))
            else:
                self.written[buffer.device].append(buffer.data)
        self.copies = {
            device: [torch.empty_like(buffer) for buffer in own] for device, own in self.written.items()
        }
        for device, own in self.written.items():
            torch._foreach_copy_(self.copies[device], own)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def restore(self) -> None:
        for buffer, before in self.compared:
            if not torch.equal(buffer, before):
                buffer.copy_(before)
        for device, own in self.written.items():
            torch._foreach_copy_(own, self.copies[device])  # pyright: ignore[reportPrivateImportUsage]


def without_temporary_hooks(copy: nn.Module) -> nn.Module:
    """A copy that was made of a network within `frozen_eval`, without the hooks that it has added."""
    for key in [key for key, hook in copy._forward_pre_hooks.items() if getattr(hook, "temporary", False)]:
        del copy._forward_pre_hooks[key]
    return copy


def _own(modules: Iterable[nn.Module], kind: str) -> Iterator[Tensor]:
    """Parameters or buffers of the modules; TorchScript keeps them as pairs."""
    for module in modules:
        entries = getattr(module, kind)
        for tensor in (
            entries.values() if isinstance(entries, dict) else [pair[1] for pair in entries.items()]
        ):
            if tensor is not None:
                yield tensor


@contextmanager
def _channels_last(network: nn.Module) -> Iterator[None]:
    """Convolutions with copies of their weights in another order; the weights themselves are not touched."""
    own = [
        (module, module.weight)
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and isinstance(module._parameters.get("weight"), nn.Parameter)
    ]
    copies = {
        weight: nn.Parameter(weight.detach().to(memory_format=torch.channels_last), requires_grad=False)
        for _, weight in own
    }
    hooks = [
        module.register_forward_pre_hook(_small_maps_first(weight, copies[weight]))
        for module, weight in own
        if module.groups == 1 and min(weight.shape[:2]) >= MANY and weight[0, 0].numel() > 1
    ]
    try:
        for module, weight in own:
            module.weight = copies[weight]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, weight in own:
            module.weight = weight


def _small_maps_first(weight: Tensor, other: Tensor) -> Callable:
    """Small maps of many channels are faster with channels first: by up to 2.7 times."""

    def choose(module: nn.Module, inputs: tuple) -> tuple | None:
        maps, *rest = inputs
        small = maps.shape[-2] * maps.shape[-1] <= SMALL
        module.weight = weight if small else other
        return (maps.contiguous(), *rest) if small else None

    return choose


def _prepare(
    network: nn.Module,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    input_dtypes: list[torch.dtype],
):
    shift, scale = (_per_channel(network, values) for values in (mean, std))

    def prepare(module: nn.Module, args: tuple) -> tuple:
        images = args[0]
        if not images.is_floating_point():
            raise ValueError(f"wanted images as floats in [0, 1], got {images.dtype}; divide bytes by 255")
        input_dtypes[:] = [images.dtype]
        if shift is not None:
            images = images - shift
        if scale is not None:
            images = images / scale
        # a copy: what the network does to it in place must reach neither the caller's images nor a leaf
        return (images.to(dtype_of(module), copy=True), *args[1:])

    prepare.temporary = shift is None and scale is None  # pyright: ignore[reportFunctionMemberAccess]
    return prepare


def _per_channel(network: nn.Module, values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(list(values), device=device_of(network))[:, None, None]


def _match_dtype(input_dtypes: list[torch.dtype]):
    def match(_: nn.Module, __: object, out: object) -> object:
        if not isinstance(out, Tensor) or out.dtype == torch.float64 == input_dtypes[0]:
            return out
        return out.float()

    return match
