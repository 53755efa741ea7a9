"""Which classes and functions are of installed packages; class attributes and globals that others use."""

import functools
import sys
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from torch.utils.data import DataLoader, Dataset, Sampler

_THREADS = frozenset({"threading", "_thread", "queue", "_queue", "multiprocessing", "concurrent", "asyncio"})
_TRAINING = frozenset({"lightning", "pytorch_lightning", "lightning_fabric", "tensorboard", "tqdm"})
_RUNNING = _THREADS | _TRAINING | {"socket", "subprocess", "logging", "weakref"}
_INSTALLED = ("site-packages", "dist-packages")


@functools.cache
def is_running(kind: type) -> bool:
    """Whether objects of a class change without being used: a trainer, a probe, a thread."""
    if _package(kind) == "torch":
        return not issubclass(kind, Dataset | Sampler | DataLoader)
    return any(_package(base) in _RUNNING for base in kind.__mro__)


def holds_lock(found: object) -> bool:
    """Whether an object holds a lock, a thread or a queue: another thread may be changing it."""
    return any(_package(type(value)) in _THREADS for value in getattr(found, "__dict__", {}).values())


@functools.cache
def is_library(kind: type) -> bool:
    """Whether a class is of an installed package."""
    return _package(kind) != "fulgurite" and _is_installed(kind.__module__)


def slots_of(kind: type, found: object) -> list[str]:
    """The names of an object's slots that are filled."""
    slots = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = [name for own in slots for name in ([own] if isinstance(own, str) else own)]
    return [name for name in names if name not in ("__dict__", "__weakref__") and hasattr(found, name)]


@functools.cache
def members_of(kind: type) -> tuple[tuple[str, ...], tuple[FunctionType, ...]]:
    """The names of a class's own plain attributes, and its functions; nothing of an installed class."""
    if _is_installed(kind.__module__):
        return (), ()
    names, functions = list[str](), list[FunctionType]()
    for name, value in vars(kind).items():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if isinstance(function, FunctionType):
            functions.append(function)
        elif not name.startswith(("__", "_abc_")) and not hasattr(value, "__get__"):
            names.append(name)
    return tuple(names), tuple(functions)


def globals_of(function: FunctionType) -> list[str]:
    """The globals, other than modules and classes, that a function names; none of an installed one."""
    if _is_installed(function.__module__ or ""):
        return []
    return [
        name
        for name in _names(function.__code__)
        if name in function.__globals__ and not isinstance(function.__globals__[name], ModuleType | type)
    ]


@functools.cache
def _names(code: CodeType) -> tuple[str, ...]:
    inner = [name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part)]
    return tuple(dict.fromkeys([*code.co_names, *inner]))


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


@functools.cache
def _is_installed(module: str) -> bool:
    top = module.partition(".")[0]
    if top == "fulgurite" or top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and any(part in _INSTALLED for part in Path(file).parts)
