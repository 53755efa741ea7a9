"""Private state of networks and data sets, saved and restored: generators, counters, lists, open files.

A data set or a module may keep state that is no parameter and no buffer: `np.random.default_rng()`, a
counter, a list that it appends to. A probe that reads a data set, or runs a network, changes that state, and
training with it. `restored` resets it, in place. Reading from a copy would not be enough: it shares what a
lambda or a function holds (its closure, its globals), cannot be made of an open file, and takes seconds and
gigabytes where the data are large.
"""

import io
import operator
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import BuiltinMethodType, CellType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from fulgurite.probes import foreign_state
from fulgurite.probes.user_code import globals_of, holds_lock, is_library, is_running, members_of, slots_of

ITEMS = 1000  # a larger container is data: it is restored itself, but what is in it is not looked at
MANY_ITEMS = 100_000  # when data sets are read, which is rare
BYTES = 2**20  # a larger tensor or array is data: it is shared, and never copied
ROOM = 64 * BYTES  # for copies of smaller ones, in all
OBJECTS, MANY_OBJECTS = 20_000, 400_000  # looked at, at most
_PLAIN = frozenset({int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size})
_GENERATORS = torch.Generator | np.random.Generator | np.random.BitGenerator | np.random.RandomState
# what `frozen_eval` restores itself
_OF_MODULES_AND_PARTS = frozenset(vars(nn.Module()))


@contextmanager
def restored(*roots: object, code: bool = False) -> Iterator[list[str]]:
    """Within the block, anything reachable from the roots may be used; at its end its state is restored.

    Restored are generators of torch, numpy and Python; attributes, lists, dicts, sets; small tensors and
    arrays; byte arrays, shared memory of ctypes and multiprocessing; what closures hold; positions in files;
    caches of functions that were empty. Of objects of installed packages only the generators are:
    they may hold what cannot be put back, such as an image that is loaded once. Parameters, buffers and hooks
    of modules are not: `frozen_eval` does that.

    Args:
        roots: networks, data sets, loaders.
        code: include attributes of classes, and globals that functions outside of installed packages use.

    Yields:
        a list, complete at the end of the block, of what cannot be restored, in words.
    """
    search = _Search(code)
    for root in roots:
        search.enqueue(root, type(root).__name__)
    search.run()
    try:
        yield search.lost
    finally:
        for restore in search.restores:
            restore()


class _Search:
    """The objects reachable from the roots, and how to restore each."""

    def __init__(self, code: bool):
        self.code, self.room = code, ROOM
        self.items, self.objects = (MANY_ITEMS, MANY_OBJECTS) if code else (ITEMS, OBJECTS)
        self.restores: list[Callable[[], object]] = []
        self.lost: list[str] = []
        self.waiting: list[tuple[object, str, bool]] = []
        self.seen: dict[int, tuple[object, bool]] = {}

    def enqueue(self, found: object, path: str, whole: bool = True) -> None:
        """Look at an object later; of one that is not `whole`, only generators are of interest."""
        if type(found) in _PLAIN or self.seen.get(id(found), (None, False))[1]:
            return
        if type(found) is tuple and _PLAIN.issuperset(map(type, found)):
            return
        if whole or id(found) not in self.seen:
            self.seen[id(found)] = found, whole
            self.waiting.append((found, path, whole))

    def run(self) -> None:
        while self.waiting and len(self.seen) < self.objects:
            self._visit(*self.waiting.pop())

    def _visit(self, found: Any, path: str, whole: bool) -> None:
        if isinstance(found, nn.Module):  # first: these are the most frequent
            self._module(found, path)
        elif isinstance(found, _GENERATORS | random.Random):
            self._generator(found)
        elif isinstance(found, Tensor | np.ndarray):
            if whole:
                self._array(found, path)
        elif isinstance(found, dict | list | tuple | set | frozenset | deque):
            self._container(found, path, whole)
        elif isinstance(found, FunctionType):
            self._function(found, path)
        elif isinstance(found, foreign_state.KINDS):
            if whole:
                self._restore_by(foreign_state.saved(found, path, self.lost.append, self._fits))
            self.enqueue(getattr(found, "__wrapped__", None), path)
        elif isinstance(found, MethodType | BuiltinMethodType | MethodWrapperType):
            self.enqueue(found.__self__, path, whole)
            self.enqueue(getattr(found, "__func__", None), path)
        elif isinstance(found, partial):
            for part in (found.func, found.args, found.keywords):
                self.enqueue(part, path, whole)
        elif isinstance(found, io.IOBase):
            if whole:
                self._file(found, path)
        elif not isinstance(found, type | ModuleType) and not is_running(type(found)):
            self._instance(found, path, whole)

    def _generator(self, found: Any) -> None:
        if isinstance(found, torch.Generator):
            self.restores.append(partial(found.set_state, found.get_state()))
        elif isinstance(found, np.random.RandomState):
            self.restores.append(partial(found.set_state, found.get_state(legacy=False)))
        elif isinstance(found, random.Random):
            with suppress(NotImplementedError):  # the operating system's own has no state
                self.restores.append(partial(found.setstate, found.getstate()))
        else:
            bits = found.bit_generator if isinstance(found, np.random.Generator) else found
            self.restores.append(partial(setattr, bits, "state", bits.state))

    def _array(self, found: Tensor | np.ndarray, path: str) -> None:
        if isinstance(found, Tensor):
            if type(found) is Tensor and found.layout is torch.strided and not found.is_inference():
                copy = found.detach().clone() if self._fits(found.nbytes) else None
                self.restores.append(partial(self._put_back, found, copy, found._version, path))
        elif found.dtype == object:
            self._items(found.ravel().tolist() if found.size <= self.items else (), path, True)
        elif found.flags.writeable and self._fits(found.nbytes):
            self.restores.append(partial(np.copyto, found, found.copy()))
        elif found.flags.writeable:
            self._restore_by(foreign_state.watched(found, path, self.lost.append))

    def _restore_by(self, restore: Callable[[], object] | None) -> None:
        if restore is not None:
            self.restores.append(restore)

    def _fits(self, size: int) -> bool:
        fits = size <= min(BYTES, self.room)
        self.room -= size * fits
        return fits

    def _put_back(self, tensor: Tensor, before: Tensor | None, version: int, path: str) -> None:
        if tensor._version == version:
            return
        if before is None:
            self.lost.append(f"{path}, a tensor too large to copy, was written to")
        else:
            with torch.no_grad():
                tensor.detach().copy_(before)

    def _container(self, found: Any, path: str, whole: bool) -> None:
        if whole and isinstance(found, dict):
            self.restores.append(partial(_restore_dict, found, dict(found)))
        elif whole and isinstance(found, list):
            self.restores.append(partial(_restore_list, found, list(found)))
        elif whole and isinstance(found, set | deque):
            self.restores.append(partial(_restore_other, found, list(found)))
        if len(found) <= self.items:
            self._items(found.values() if isinstance(found, dict) else found, path, whole)

    def _items(self, items: Iterable, path: str, whole: bool) -> None:
        for item in items:
            self.enqueue(item, path, whole)

    def _function(self, found: FunctionType, path: str) -> None:
        for name, cell in zip(found.__code__.co_freevars, found.__closure__ or (), strict=True):
            with suppress(ValueError):  # an empty one
                self.restores.append(partial(_restore_cell, cell, cell.cell_contents))
                self.enqueue(cell.cell_contents, f"{path} ({name})")
        for part in (found.__defaults__, found.__kwdefaults__, found.__dict__):
            self.enqueue(part, path)
        if self.code:
            names = globals_of(found)
            self._bindings(found.__globals__, found.__globals__.__setitem__, names)
            for name in names:
                self.enqueue(found.__globals__[name], name)

    def _bindings(
        self, namespace: Mapping[str, Any], write: Callable[[str, Any], object], names: Iterable[str]
    ) -> None:
        before = {name: namespace[name] for name in names}
        self.restores.append(
            lambda: [write(name, value) for name, value in before.items() if namespace.get(name) is not value]
        )

    def _file(self, found: io.IOBase, path: str) -> None:
        try:
            if found.readable():
                self.restores.append(partial(self._wind_back, found, found.tell(), path))
        except (OSError, ValueError):
            if not found.closed:
                self.lost.append(f"{path} is an open file that cannot be wound back")

    def _wind_back(self, file: io.IOBase, position: int, path: str) -> None:
        if file.closed:
            self.lost.append(f"{path} is a file that was closed")
        else:
            file.seek(position)

    def _module(self, found: nn.Module, path: str) -> None:
        own = vars(found)
        self.restores.append(partial(_restore_dict, own, dict(own)))
        parts = own.get("_modules")
        self._items(parts.values() if isinstance(parts, dict) else (), path, True)
        # most have only what every module has, numbers and pairs of numbers: this runs at every probe
        for name in own.keys() - _OF_MODULES_AND_PARTS:
            if type(value := own[name]) not in _PLAIN:
                self.enqueue(value, f"{path}.{name}")
        self._class(type(found))

    def _instance(self, found: Any, path: str, whole: bool) -> None:
        own = getattr(found, "__dict__", None)
        if own is None and hasattr(type(found), "__next__"):
            if whole:
                self.lost.append(f"{path} is a {type(found).__name__}, which cannot be wound back")
            return
        if whole and not isinstance(found, Dataset | Sampler | DataLoader):
            whole = not (is_library(type(found)) or holds_lock(found))
        own, slots = own or {}, {name: getattr(found, name) for name in slots_of(type(found), found)}
        if whole:
            self.restores.append(partial(_restore_dict, own, dict(own)))
            self.restores.append(lambda: [object.__setattr__(found, *item) for item in slots.items()])
            self._class(type(found))
        for name, value in (own | slots).items():
            self.enqueue(value, f"{path}.{name}", whole)

    def _class(self, kind: type) -> None:
        if not self.code:
            return
        for base in kind.__mro__:
            names, functions = members_of(base)
            self._bindings(vars(base), partial(setattr, base), names)
            for name in names:
                self.enqueue(vars(base)[name], f"{base.__name__}.{name}")
            for function in functions:
                self.enqueue(function, base.__name__)


def _restore_dict(found: dict, before: dict) -> None:
    # by maps over whole columns: this runs at every probe, for every module
    same = list(found) == list(before) and all(map(operator.is_, found.values(), before.values()))
    if not same:
        found.clear()
        found.update(before)


def _restore_list(found: list, before: list) -> None:
    if len(found) != len(before) or any(map(operator.is_not, found, before)):
        found[:] = before


def _restore_other(found: Any, before: list) -> None:
    if len(found) != len(before) or any(map(operator.is_not, found, before)):
        found.clear()
        (found.extend if isinstance(found, deque) else found.update)(before)


def _restore_cell(cell: CellType, before: object) -> None:
    cell.cell_contents = before
