"""Recipes that pass their keyword arguments on to other functions: merged signatures and docstrings."""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

Function = Callable[..., Any]


def passes_on(
    *functions: Function, without: Collection[str] = (), **defaults: Any
) -> Callable[[Function], Function]:
    """Add the keyword-only arguments of `functions`, with their docs, to a function with `**knobs`.

    Its own arguments come first, and its own description of an argument has priority. Signature and docstring
    are merged, so that the command and `help` list every knob; an argument that no function has is a
    TypeError.

    Args:
        functions: their keyword arguments are added; where two have the same, the first one's wins.
        without: knobs that it sets itself.
        defaults: other defaults than theirs.
    """

    def decorate(build: Function) -> Function:
        known = inspect.signature(build).parameters.values()
        knobs = {knob.name: knob for knob in known if knob.kind is not inspect.Parameter.VAR_KEYWORD}
        words = _words(build)
        for function in functions:
            for name in [name for name in keywords(function) if name not in {*knobs, *without}]:
                knob = inspect.signature(function).parameters[name]
                knobs[name] = knob.replace(default=defaults.get(name, knob.default))
            words = _words(function) | words
        if unknown := {*without, *defaults} - {*knobs, *without}:
            raise TypeError(f"no function passes on {', '.join(sorted(unknown))}")
        signature = inspect.Signature(list(knobs.values()))

        @functools.wraps(build)
        def passing(**arguments: Any) -> Any:
            bound = signature.bind(**arguments)
            bound.apply_defaults()
            return build(**bound.kwargs)

        about = (inspect.getdoc(build) or "").split("\nArgs:")[0].rstrip()
        listed = "\n".join(f"    {name}: {words[name]}" for name in knobs if name in words)
        passing.__doc__ = f"{about}\n\nArgs:\n{listed}\n"
        passing.__annotations__ = {name: knob.annotation for name, knob in knobs.items()}
        vars(passing)["__signature__"] = signature
        return passing

    return decorate


def keywords(function: Function) -> list[str]:
    """The names of a function's keyword-only arguments."""
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]


def those_of(function: Function, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that a function takes."""
    return {name: knobs[name] for name in keywords(function) if name in knobs}


def _words(function: Function) -> dict[str, str]:
    """The description of each argument in a docstring, with continuation lines."""
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    parts = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    return {name: words.rstrip() for name, words in zip(parts[::2], parts[1::2], strict=True)}
