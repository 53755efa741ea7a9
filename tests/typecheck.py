"""The checker of every annotation while the tests run: beartype, with ints welcome where floats are.

`jaxtyping.jaxtyped` took half the time of all tests: it binds the arguments of each call by itself, checks
them before the call and again after it, and makes its checks again whenever a function is defined within
another. `jaxtyped` here asks the same of every argument and every answer, once, and keeps what it has made.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError
from jaxtyping._decorator import _make_fn_with_signature
from jaxtyping._storage import pop_shape_memo, push_shape_memo

checked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError))
theirs = jaxtyping.jaxtyped
kept: dict[CodeType, tuple[dict[str, Any], Callable, Callable]] = {}
"""Of functions defined within others: the annotations, and what checks arguments and the answer by these."""


def install() -> None:
    """Let the import hook of jaxtyping, which looks it up by name, use what is here."""
    jaxtyping.jaxtyped = jaxtyped


def jaxtyped(fn: Any = None, *, typechecker: Callable) -> Any:
    """Check all that a function or the `__init__` of a dataclass takes, and all that it gives."""
    again = functools.partial(jaxtyped, typechecker=typechecker)
    if fn is None:
        return again
    if isinstance(fn, classmethod | staticmethod):
        return type(fn)(again(fn.__func__))
    if isinstance(fn, property):
        return property(*(part and again(part) for part in (fn.fget, fn.fset, fn.fdel)))
    if inspect.isclass(fn):
        made = vars(fn).get("__init__") if dataclasses.is_dataclass(fn) else None
        if made is not None and not hasattr(made, "__wrapped__"):
            fn.__init__ = again(made)
        return fn
    hints = list(fn.__annotations__.values())
    if not hints:
        return fn
    if not isinstance(fn, FunctionType) or anywhere(hints, lambda hint: isinstance(hint, str)):
        return theirs(fn, typechecker=typechecker)  # a name in quotes may not stand for anything yet
    within = "<locals>" in fn.__qualname__ or inspect.isgeneratorfunction(fn)
    found = apart(fn, typechecker) if within else typechecker(fn)
    return with_sizes(found) if anywhere(hints, is_array) else found


def anywhere(hints: Any, found: Callable[[Any], bool]) -> bool:
    return any(
        found(hint) or anywhere(get_args(hint) or (hint if isinstance(hint, list) else ()), found)
        for hint in hints
    )


def is_array(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)


def with_sizes(fn: Callable) -> Callable:
    """In all annotations of one call, the name of a dimension has one size."""

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        push_shape_memo({})
        try:
            return fn(*args, **kwargs)
        finally:
            pop_shape_memo()

    return wrapped


def apart(fn: FunctionType, typechecker: Callable) -> Callable:
    """Checks that are built once for a piece of code, however many functions are created from it."""
    if (known := kept.get(fn.__code__)) is None or known[0] != fn.__annotations__:
        signature = inspect.signature(fn)

        def answer(value: Any) -> Any:
            return value

        answer.__annotations__ = {"value": fn.__annotations__.get("return", Any)}
        taken = signature.replace(return_annotation=Any)
        arguments = _make_fn_with_signature(fn.__name__, fn.__qualname__, fn.__module__, taken, output=False)
        known = kept[fn.__code__] = dict(fn.__annotations__), typechecker(arguments), typechecker(answer)
    _, arguments, answer = known

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        arguments(*args, **kwargs)
        return answer(fn(*args, **kwargs))

    return wrapped
