"""The recipes by name."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

from fulgurite import recipes
from fulgurite.probes.record import nearest
from fulgurite.recipes.analysis import Analysis
from fulgurite.recipes.recipe import Recipe


def recipe_of(name: str) -> Callable[..., Recipe | Analysis]:
    """The recipe of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in recipe_names():
        raise ValueError(f"no recipe {name!r}; {nearest(name, recipe_names())}")
    return importlib.import_module(f"{recipes.__name__}.{name}").recipe


def recipe_names() -> list[str]:
    """The modules of `recipes` that define a `recipe`, found without importing any."""
    files = (file for place in recipes.__path__ for file in Path(place).glob("*.py"))
    return sorted(file.stem for file in files if "\ndef recipe(" in file.read_text(encoding="utf-8"))


def first_lines() -> dict[str, str]:
    """What each recipe is for, in a line."""
    modules = {name: importlib.import_module(f"{recipes.__name__}.{name}") for name in recipe_names()}
    return {name: (inspect.getdoc(module) or "").splitlines()[0] for name, module in modules.items()}
