"""The page of private names of other libraries lists every use, with its reason, and nothing else."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "private_apis.md").read_text()
FILES = [
    file
    for room in ("probes", "models", "callbacks", "data", "recipes", "cli", "api")
    for file in sorted((ROOT / room).rglob("*.py"))
]
PUBLIC = {"_asdict", "_fields", "_replace", "_make", "_exit"}  # named tuples' own, and os._exit, documented


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def written_here(tree: ast.AST) -> set[str]:
    """Private names that our code defines itself, in any file."""
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            names.add(node.attr)
    return {name for name in names if is_private(name)}


TREES = {file: ast.parse(file.read_text()) for file in FILES}
OURS = set[str]().union(*map(written_here, TREES.values())) | PUBLIC


def of_others(tree: ast.AST) -> set[str]:
    """Private attributes and imports that our code does not define."""
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("fulgurite"):
            found |= {*node.module.split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {part for alias in node.names for part in alias.name.split(".")}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {*node.value.split(".")} if re.fullmatch(r"[\w.]+", node.value) else set()  # getattr
    return {name for name in found if is_private(name)} - OURS - {"_every"}  # a suffix of ours


USED = {file: of_others(tree) for file, tree in TREES.items()}


@pytest.mark.parametrize("file", [file for file in FILES if USED[file]], ids=lambda file: file.stem)
def test_private_names_of_other_libraries_are_listed_on_the_page(file: Path):
    rows = [row for row in PAGE.splitlines() if f"`{file.relative_to(ROOT)}`" in row]
    reported = {name for row in rows for name in re.findall(r"`(_\w+)`", row)}
    assert sorted(USED[file] - reported) == [], (
        f"{file.relative_to(ROOT)}: write down why in docs/private_apis.md"
    )


def test_the_page_has_no_name_that_is_not_used():
    reported = set(re.findall(r"`(_\w+)`", PAGE))
    assert sorted(reported - set[str]().union(OURS, *USED.values())) == []


def test_the_tests_and_files_that_the_page_names_are_there():
    for name in re.findall(r"`([\w/]+\.py)`", PAGE):
        assert (ROOT / name).is_file(), name
