"""The probes of image files by name, read from the source: a list of commands needs no torch."""

import ast
from collections.abc import Iterator
from pathlib import Path

from fulgurite import cli

FAMILIES = (
    *("attribution", "faithfulness", "attack", "synthesis", "class_images"),
    *("activations", "patches", "concepts", "concept_vectors", "dreams", "fooling", "codes"),
)
"""The modules of this package that define `PROBES`, `parse` and `answer`."""
_HERE = Path(cli.__path__[0])
_METHODS = _HERE.parent / "probes" / "attribution" / "methods.py"


def first_lines() -> dict[str, str]:
    """What each probe shows, in a line."""
    return {probe: line for _, probe, line in _listed()}


def family_of(probe: str) -> str | None:
    """The module of this package that runs a probe; None if there is no such probe."""
    return {name: family for family, name, _ in _listed()}.get(probe)


def _listed() -> Iterator[tuple[str, str, str]]:
    for family in FAMILIES:
        for name, line in _tables(_HERE / f"{family}.py"):
            yield family, name, line
        if family == "attribution":
            for name, line in _methods():
                yield family, name, line


def _tables(file: Path) -> Iterator[tuple[str, str]]:
    """The names and lines that are written out in a family's `PROBES` or `SHEETS`."""
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            names = {target.id for target in statement.targets if isinstance(target, ast.Name)}
            if names & {"PROBES", "SHEETS"}:
                yield from ast.literal_eval(statement.value).items()


def _methods() -> Iterator[tuple[str, str]]:
    """The attribution methods of `METHODS`, with the first lines of their docstrings."""
    body = ast.parse(_METHODS.read_text(encoding="utf-8")).body
    homes = {
        alias.name: statement.module.rpartition(".")[2]
        for statement in body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }
    table = next(
        statement.value
        for statement in body
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "METHODS"
    )
    assert isinstance(table, ast.DictComp)
    named = [node.id for node in ast.walk(table.generators[0].iter) if isinstance(node, ast.Name)]
    lines = {}
    for home in {homes[name] for name in named}:
        for function in ast.parse(_METHODS.with_name(f"{home}.py").read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef):
                lines[function.name] = (ast.get_docstring(function) or "").partition("\n")[0]
    yield from ((name, lines[name]) for name in named)
