"""Gradient passes through a compiled copy of a network, replayed as CUDA graphs."""

import copy
import warnings
from collections.abc import Callable
from itertools import chain
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fulgurite.probes.frozen_eval import without_temporary_hooks

Pass = Callable[[Tensor], Tensor]


class CompiledPass:
    """A frozen copy of a network in eval mode, compiled once; weights are copied into it before each use.

    Images of the first shape are replayed as a CUDA graph of the compiled copy; those of other shapes run
    through the copy without compilation, as do all if the network cannot be compiled, with a warning.

    Args:
        network: on a GPU.
        dtype: what convolutions and matrix products compute in.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        self.copy = without_temporary_hooks(copy.deepcopy(network)).eval().requires_grad_(False)
        self.copy.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.dtype = dtype
        self.shape: torch.Size | None = None
        self.fast: Pass | None = None

    def copy_weights(self, network: nn.Module) -> bool:
        """Take the network's weights and buffers; False where they are no longer of the same kind."""
        own, sources = (list(chain(net.parameters(), net.buffers())) for net in (self.copy, network))
        kinds = ([(part.shape, part.dtype, part.device) for part in side] for side in (own, sources))
        if next(kinds) != next(kinds):
            return False
        with torch.no_grad():
            # through .data: the copy's tensors are in no autograd graph
            torch._foreach_copy_([part.data for part in own], [part.data for part in sources])  # pyright: ignore[reportPrivateImportUsage]
        return True

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The logits, graph attached, in float32."""
        if self.shape is None:
            self.shape = images.shape
            self.fast = self._prepared(images)
        return (self.fast if self.fast and images.shape == self.shape else self._as_written)(images)

    def _as_written(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.copy(images).float()

    def _prepared(self, images: Tensor) -> Pass | None:
        compiled = torch.compile(self._as_written)

        def run(images: Tensor) -> Tensor:
            with torch.compiler.set_stance("default"):  # within `frozen_eval` the network itself runs eagerly
                return compiled(images)

        sample = images.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        try:
            torch.autograd.grad(run(sample).sum(), sample)
        except Exception as error:  # each network and each machine fails in its own way
            self._warn("compiled", error)
            return None
        try:
            graphed = torch.cuda.make_graphed_callables(run, (sample,))
        except Exception as error:
            self._warn("captured as a CUDA graph", error)
            return run
        # the next replay of a CUDA graph overwrites its outputs
        return lambda images: graphed(images).clone()  # pyright: ignore[reportAttributeAccessIssue]

    def _warn(self, what: str, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200]
        message = f"{type(self.copy).__name__} could not be {what}, its gradient passes are slower: {reason}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)


_KNOWN: "WeakKeyDictionary[nn.Module, dict[torch.dtype, CompiledPass]]" = WeakKeyDictionary()


def compiled_pass(network: nn.Module, dtype: torch.dtype) -> CompiledPass:
    """The compiled copy of a network, with its present weights: made once for each network object."""
    mine = _KNOWN.setdefault(network, {})
    if dtype not in mine or not mine[dtype].copy_weights(network):
        mine[dtype] = CompiledPass(network, dtype)
    return mine[dtype]
