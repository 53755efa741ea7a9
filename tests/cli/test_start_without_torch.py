"""Help, lists and typing errors of the command need no torch, and come at once."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest

import fulgurite
from fulgurite import recipes
from fulgurite.cli import known_probes, known_recipes
from fulgurite.cli.image_probes import probes

TRAIN = Path(__file__).parents[2] / "train.py"
HEAVY = ("torch", "lightning", "torchvision", "sklearn", "numpy")


@pytest.mark.parametrize(
    ("words", "status", "reported"),
    [
        ([], 0, "grad_cam"),
        (["--help"], 0, "recipes, for fit:"),
        (["--version"], 0, f"fulgurite {fulgurite.__version__}\n"),
        (["fit"], 0, "digits"),
        (["fit", "--help"], 0, "digits"),
        (["grad_cma"], 2, "nearest: grad_cam"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_needs_no_torch_and_less_than_a_second(words: list[str], status: int, reported: str):
    code = (
        "import sys, runpy\n"
        "try:\n"
        f"    runpy.run_path({str(TRAIN)!r}, run_name='__main__')\n"
        "finally:\n"
        f"    print([name for name in {HEAVY} if name in sys.modules])"
    )
    took = []
    for _ in range(6):  # another process may have had the core
        began = perf_counter()
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        took.append(perf_counter() - began)
        assert done.returncode == status, done.stderr
        assert reported in done.stdout + done.stderr
        assert done.stdout.endswith("[]\n")
        if took[-1] < 1:
            break
    assert min(took) < 1


@pytest.mark.slow
def test_the_list_of_probes_is_what_the_families_define():
    wanted = {name: family.PROBES[name].splitlines()[0] for name, family in probes().items()}
    assert known_probes.first_lines() == wanted
    assert {name: f"fulgurite.cli.{known_probes.family_of(name)}" for name in wanted} == {
        name: family.__name__ for name, family in probes().items()
    }


def test_the_list_of_recipes_matches_the_modules():
    for name, line in known_recipes.first_lines().items():
        module = importlib.import_module(f"{recipes.__name__}.{name}")
        assert line == (inspect.getdoc(module) or "").splitlines()[0]
        assert callable(module.recipe)
