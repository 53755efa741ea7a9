"""Steps of a forward pass that autograd does not see: choices in Python, detached terms, writes into data."""

import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

# constants of products and choices are found in autograd's graph, see `rectifications`
_SUMS = {"add", "add_", "sub", "sub_", "rsub", "copy_"}
_READS = {"_local_scalar_dense", "is_nonzero", "equal"}
# these read only the shape of a tensor
_SHAPED = {"empty_like", "full_like", "ones_like", "rand_like", "randn_like", "zeros_like"}
_COMPUTED = "what is computed from the image"


_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[tuple, Counter[str]]] = weakref.WeakKeyDictionary()


def known_steps(network: nn.Module) -> Counter[str] | None:
    """What an earlier pass of this network, with these modules and hooks, found; None without one.

    Watching takes as long as launching the steps, which on a GPU is most of a pass; so it is done once.
    """
    made, found = _KNOWN.get(network, ((), None))
    return found if found is not None and made == _made_of(network) else None


def remember_steps(network: nn.Module, found: Counter[str]) -> None:
    """Keep what was found in a network for as long as there is the network."""
    _KNOWN[network] = _made_of(network), found


def _made_of(network: nn.Module) -> tuple:
    return tuple(
        (id(one), id(getattr(one.forward, "__func__", one.forward)), *one._forward_hooks)
        for one in network.modules()
    )


class HiddenSteps(TorchDispatchMode):
    """Watches what is computed from the pixels, below autograd, where every step is seen.

    `found` counts what may hide a rectification: a number read in Python, as by `if x.mean() > 0`; a sum with
    a term that is detached, as in straight-through estimators; and what is written into a tensor behind
    autograd's back (`.data`, `no_grad`), where a tensor hook may stand for its gradient. Values that leave
    torch, as by `.numpy()`, and a tensor that gets another's memory, as by `x.data = y`, are not seen.
    """

    def __init__(self, pixels: Tensor):
        super().__init__()
        self.found = Counter[str]()
        self._computed: dict[int, StorageWeakRef] = {}
        self._owner: dict[int, weakref.ref[Tensor]] = {}
        self._add(pixels)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run the step, and look at what goes in."""
        name = function.overloadpacket.__name__
        given = [*_tensors((args, kwargs or {}))]
        computed = [one for one in given if self._is_computed(one)]
        constant = [one for one in computed if one.is_floating_point() and not one.requires_grad]
        if computed and name in _READS:
            self.found[f"choice made in Python by {_COMPUTED}"] += 1
        elif name in _SUMS and constant and any(one.requires_grad for one in given):
            self.found[f"{name.strip('_').capitalize()} of {_COMPUTED} and detached"] += 1
        elif computed and name.endswith("_") and self._is_behind(given[0]):
            self.found[f"write past autograd of {_COMPUTED}"] += 1
        result = function(*args, **(kwargs or {}))
        if computed and not (name.startswith("new_") or name in _SHAPED):
            for one in _tensors(result):
                self._add(one)
        return result

    def _is_behind(self, written: Tensor) -> bool:
        """Whether values that autograd tracks are written without autograd noticing."""
        if written.requires_grad:
            return not torch.is_grad_enabled()
        owner = self._owner.get(written.untyped_storage()._cdata)
        known = None if owner is None else owner()
        return known is not None and known is not written and known.requires_grad

    def _is_computed(self, one: Tensor) -> bool:
        place = self._computed.get(one.untyped_storage()._cdata)
        return place is not None and not place.expired()

    def _add(self, one: Tensor) -> None:
        storage = one.untyped_storage()
        known = self._computed.get(storage._cdata)
        if known is None or known.expired():
            self._computed[storage._cdata] = StorageWeakRef(storage)
            self._owner[storage._cdata] = weakref.ref(one)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        if values.layout is torch.strided:
            yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
