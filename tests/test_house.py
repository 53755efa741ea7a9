"""Package structure: the import contract, one copy of every class, and a wheel next to other projects."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("probes", "models", "callbacks", "data", "recipes", "cli", "api")


def test_the_import_contract_holds():
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".types")}  # all rooms below one root
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


FILES = [
    file for room in (*ROOMS, "benchmarks", "docs", "tests") for file in sorted((ROOT / room).rglob("*.py"))
]


@pytest.mark.parametrize("file", [*FILES, ROOT / "train.py"], ids=lambda file: str(file.relative_to(ROOT)))
def test_no_room_is_imported_by_its_bare_name(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        assert not [name for name in names if name.split(".")[0] in ROOMS], (
            f"a second copy of every class: {names}"
        )


def test_all_progress_bars_use_one_interval():
    """A bar that does not know of files and pipes would fill them with carriage returns."""
    texts = {file.name: file.read_text() for file in FILES if "tests" not in file.parts}
    bars = {name: text for name, text in texts.items() if "import tqdm" in text}
    assert [name for name, text in bars.items() if "mininterval=bar_interval()" not in text] == [
        "progress.py"
    ]


def test_probes_need_no_lightning():
    code = (
        "import sys, pkgutil, importlib, fulgurite.probes as p\n"
        "for m in pkgutil.walk_packages(p.__path__, 'fulgurite.probes.'):\n"
        "    importlib.import_module(m.name)\n"
        "assert not [name for name in sys.modules if name.startswith(('lightning', 'pytorch_lightning'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)


@pytest.mark.slow
def test_a_wheel_works_next_to_a_project_with_the_same_folder_names(tmp_path: Path):
    copy = tmp_path / "checkout"  # building leaves things behind
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "runs", "datasets", "__pycache__")
    )
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(copy),
    ]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(tmp_path.glob("fulgurite-*.whl"))
    site = tmp_path / "site"
    into = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(site), str(wheel)]
    subprocess.run(into, check=True, capture_output=True)
    assert sorted(path.name for path in site.iterdir() if path.is_dir() and "dist-info" not in path.name) == [
        "bin",
        "fulgurite",
    ]
    for room in ("models", "callbacks"):
        (tmp_path / "theirs" / room).mkdir(parents=True)
        (tmp_path / "theirs" / room / "__init__.py").write_text(f"name = 'their {room}'\n")
    code = (
        "import models, callbacks, fulgurite.models.classifier as ours\n"
        "from fulgurite.callbacks.saliency import Saliency\n"
        "from fulgurite.cli.command import main\n"
        "print(models.name, callbacks.name, ours.__file__)\n"
        "raise SystemExit(main(['--help']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "theirs",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    first = done.stdout.splitlines()[0]
    assert first.startswith("their models their callbacks")
    assert str(site) in first
