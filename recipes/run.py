"""A run's folder: recipe, knobs, versions and checkpoints."""

import inspect
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonargparse

from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.style import THEMES, ThemeName
from fulgurite.recipes import plain_values

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "timm", "numpy", "tensorboard", "fulgurite")
FILE, TESTED = "run.json", "test.json"
ROOT = Path("runs")
"""The default folder of runs: runs/digits/0, runs/digits/1 ..."""
SETTLED = {
    **dict.fromkeys(("optimizer", "lr", "weight_decay"), "the optimiser in its checkpoint goes on"),
    **dict.fromkeys(
        ("strategy", "weights", "backbone", "fitted_head", "pretrained", "source", "source_epochs"),
        "its weights have come from there",
    ),
    "ema": "such an average begins with the first step",
}
"""Knobs that a resumed run cannot change, and why."""


@dataclass(frozen=True)
class Run:
    """The content of `run.json`: enough to build the same model and data again.

    `images` has the format of the network's images, and its classes (see `Recipe.takes`): enough to use it
    without the data. `theme` is that of its pictures.
    """

    recipe: str
    knobs: Mapping[str, Any]
    trainer: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=lambda: {name: version(name) for name in PACKAGES})
    commit: str | None = field(default_factory=lambda: _commit())
    images: Mapping[str, Any] = field(default_factory=dict)
    theme: ThemeName = "dark"

    def write(self, folder: Path) -> None:
        """Write it atomically into the folder, which is created if needed."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / FILE, json.dumps(asdict(self), indent=2, default=str) + "\n")


def read(folder: Path) -> Run:
    """The run that a folder holds: plain values, none of which is ever imported or run.

    Raises:
        ValueError: it is not a run's folder, or its `run.json` is not a valid one.
    """
    file = folder / FILE
    if not file.is_file():
        what = (
            "is not a folder"
            if not folder.is_dir()
            else f"holds no {FILE}" + " that is a regular file" * os.path.lexists(file)
        )
        raise ValueError(
            f"{folder} {what}; wanted the folder of a run, such as runs/digits/0. A checkpoint of a training "
            "of your own is for commands that take --network and --weights, such as grad_cam"
        )
    content = plain_values.read_json(file)
    try:
        return checked(content)
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def checked(content: Any) -> Run:
    """The run that plain values describe.

    Raises:
        ValueError: they do not describe a valid run.
    """
    _check(content)
    return Run(**content)


def _check(content: Any) -> None:
    plain_values.check_keys(content, {part.name: part for part in fields(Run)}, f"a {FILE}")
    if missing := [name for name in ("recipe", "knobs", "trainer") if name not in content]:
        raise ValueError(f"it says nothing of its {missing[0]}")
    for name, kind in {"recipe": str, "commit": str | None}.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"its {name} is of type {type(content[name]).__name__}; wanted text")
    for name in ("knobs", "trainer", "versions"):
        plain_values.check_plain(content.get(name, {}), name)
    plain_values.check_images(content.get("images", {}))
    if content.get("theme", "dark") not in [*THEMES]:
        raise ValueError(f"its theme is {content['theme']!r}; wanted one of {', '.join(THEMES)}")


def tested(folder: Path, checkpoint: Path) -> Mapping[str, Any]:
    """Results for a checkpoint of the test at the end of a run; nothing where it tested another one.

    Raises:
        ValueError: the file of the test is damaged.
    """
    if not (folder / TESTED).is_file():
        return {}
    found = plain_values.read_json(folder / TESTED)
    return found if isinstance(found, dict) and found.get("checkpoint") == checkpoint.name else {}


def check_goes_on(run: Run, knobs: Mapping[str, Any]) -> None:
    """Check that a run can be resumed with these knobs.

    Raises:
        ValueError: one of them cannot be changed.
    """
    for name, why in SETTLED.items():
        if name in run.knobs and knobs.get(name) != run.knobs[name]:
            raise ValueError(
                f"a resumed run keeps its {name}, {run.knobs[name]}: {why}; leave out --{name} {knobs[name]} "
                "or begin another run"
            )


def checkpoint(folder: Path, which: str = "last") -> Path:
    """A checkpoint of a run: "last", "best" on the validation images, or a file, there or by its path.

    Without validation (`limit_val_batches` 0), the best is the last.

    Raises:
        ValueError: there is none.
    """
    kept = folder / "checkpoints"
    places = [kept / f"{which}.ckpt", kept / which, Path(which)]
    if which == "best" and (folder / FILE).is_file() and read(folder).trainer.get("limit_val_batches") == 0:
        places.append(folder / "checkpoints" / "last.ckpt")
    if (found := next((place for place in places if place.is_file()), None)) is None:
        there = sorted(place.name for place in (folder / "checkpoints").glob("*.ckpt"))
        remedy = (
            f"there are: {', '.join(there)}" if there else "no epoch of a training was ever finished there"
        )
        if (folder / FILE).is_file() and (folder / f"{read(folder).recipe}.json").is_file():
            remedy = (
                f"a run of {read(folder).recipe!r} trains no network; predict RUN PATH goes by what it found"
            )
        if which == "best" and "last.ckpt" in there:
            remedy = (
                f"--checkpoint last takes the last one; its weights are {folder / 'checkpoints/last.ckpt'}"
            )
        raise ValueError(f"no checkpoint {which!r} in {folder}; {remedy}")
    return found


def _commit() -> str | None:
    """The commit of the code that runs, with a plus if files differ from it; none outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        lines = [
            subprocess.run(
                ["git", "-C", here, *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return lines[0] + "+" * bool(lines[1])


def knobs(recipe: Callable, run: Run) -> dict[str, Any]:
    """The knobs of a run, each known to the recipe.

    Raises:
        ValueError: the recipe has changed since.
    """
    if unknown := [knob for knob in run.knobs if knob not in inspect.signature(recipe).parameters]:
        raise ValueError(
            f"the run was made with {', '.join(unknown)}, which the recipe {run.recipe!r} no longer has; "
            f"its commit was {run.commit}"
        )
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(recipe, as_group=False)
    try:
        return vars(parser.parse_object(dict(run.knobs)))
    except jsonargparse.ArgumentError as error:
        raise ValueError(f"the run's knobs are damaged: {' '.join(str(error).split())}") from None
