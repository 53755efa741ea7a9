"""The recipes by name."""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fulgurite import recipes
from fulgurite.probes.nearest_names import nearest

if TYPE_CHECKING:  # a list of recipes needs no torch
    from fulgurite.recipes.analysis import Analysis
    from fulgurite.recipes.recipe import Recipe


def recipe_of(name: str) -> "Callable[..., Recipe | Analysis]":
    """The recipe of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in _sources():
        raise ValueError(f"no recipe {name!r}; {nearest(name, _sources())}")
    return importlib.import_module(f"{recipes.__name__}.{name}").recipe


def recipe_names() -> list[str]:
    """The modules of `recipes` that define a `recipe`, found without importing any."""
    return list(_sources())


def first_lines() -> dict[str, str]:
    """What each recipe is for, in a line, read without importing any."""
    documents = {name: ast.get_docstring(ast.parse(source)) or "" for name, source in _sources().items()}
    return {name: document.partition("\n")[0] for name, document in documents.items()}


def listed(verb: str) -> str:
    """The output of `fit` without a recipe."""
    lines = "\n".join(f"  {name:16}{line}" for name, line in first_lines().items())
    return f"recipes:\n{lines}\n\n{verb} RECIPE --help shows a recipe's knobs."


def _sources() -> dict[str, str]:
    files = sorted(file for place in recipes.__path__ for file in Path(place).glob("*.py"))
    sources = {file.stem: file.read_text(encoding="utf-8") for file in files}
    return {name: source for name, source in sources.items() if "\ndef recipe(" in source}
