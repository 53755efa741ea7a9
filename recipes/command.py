"""The command: fit a recipe; validate, test or probe a run."""

import importlib
import inspect
import os
import pkgutil
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from fulgurite import recipes
from fulgurite.models.weights import load
from fulgurite.models.weights import read as read_weights
from fulgurite.probes.record import nearest
from fulgurite.recipes import run as runs
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.run import Run

PARTS = {"recipe", "run", "command"}
VERBS = {
    "fit": "train a recipe, or go on with a run: fit RECIPE [--knob VALUE] [--trainer.X VALUE] [--resume RUN]",
    "validate": "loss and accuracy on the validation images: validate RUN",
    "test": "loss and accuracy on the test images: test RUN",
    "probe": "look at what a run has learnt with all its probes, and write the pictures as PNG: probe RUN",
}
OWNED = ("logger", "callbacks", "default_root_dir")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake in what was asked is one line and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
        elif words[0] not in VERBS:
            raise ValueError(f"no command {words[0]!r}; {nearest(words[0], VERBS)}")
        elif words[0] == "fit":
            fit(words[1:])
        else:
            look(words[0], words[1:])
    except (ValueError, MisconfigurationException) as error:
        if os.environ.get("FULGURITE_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def fit(words: Sequence[str]) -> None:
    """Train a recipe into a fresh folder, or go on with a run in its own."""
    if not words or words[0].startswith("-"):
        raise ValueError(f"fit which recipe? {_listed()}")
    name, rest = words[0], list(words[1:])
    resumed = _resumed(rest)
    if resumed and resumed[1].recipe != name:
        raise ValueError(f"{resumed[0]} is a run of {resumed[1].recipe!r}, not of {name!r}")
    knobs, options, folder = _parsed(name, rest, resumed[1] if resumed else None)
    folder = resumed[0] if resumed else _claimed(folder, name)
    made = not folder.exists()
    try:
        recipe = recipe_of(name)(**knobs)
        trainer = _trainer(recipe, folder, options, resumed)
        if rank_zero_only.rank == 0 and not trainer.fast_dev_run:
            Run(name, knobs, options).write(folder)
        rank_zero_info(f"{name} into {folder}")
        trainer.fit(recipe.model, recipe.data, ckpt_path=_last(resumed), weights_only=True)
        _close(trainer, recipe, folder)
    except (ValueError, MisconfigurationException):
        if made and rank_zero_only.rank == 0 and not list(folder.glob("checkpoints/*.ckpt")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def look(verb: str, words: Sequence[str]) -> None:
    """Validate, test or probe the weights of a run."""
    parser = jsonargparse.ArgumentParser(
        prog=f"train.py {verb}", description=VERBS[verb], exit_on_error=False
    )
    parser.add_argument("run", type=str, help="the folder of a run")
    parser.add_argument("--checkpoint", default="best", help='"best", "last", or a file')
    parser.add_argument(
        "--trainer", type=dict[str, Any], default={}, help="--trainer.X: any argument of Lightning's Trainer"
    )
    asked = _parse(parser, words)
    folder = Path(asked.run)
    run = runs.read(folder)
    checkpoint = runs.checkpoint(folder, asked.checkpoint)
    recipe = recipe_of(run.recipe)(**run.knobs)
    load(recipe.model.network, read_weights(checkpoint), source=str(checkpoint))
    for probe in recipe.probes:
        probe.pictures = folder / "pictures"
    trainer = pl.Trainer(
        logger=TensorBoardLogger(folder / "probe", name="", version="") if verb == "probe" else False,
        callbacks=list(recipe.probes) if verb == "probe" else [],
        **_checked(asked.trainer),
    )
    action = trainer.test if verb == "test" else trainer.validate
    action(recipe.model, recipe.data, ckpt_path=checkpoint, weights_only=True)
    if verb == "probe":
        rank_zero_info(f"pictures in {folder / 'pictures'}")


def recipe_of(name: str) -> Callable[..., Recipe]:
    """The recipe of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in _names():
        raise ValueError(f"no recipe {name!r}; {nearest(name, _names())}")
    return importlib.import_module(f"{recipes.__name__}.{name}").recipe


def _names() -> list[str]:
    return sorted(
        module.name for module in pkgutil.iter_modules(recipes.__path__) if module.name not in PARTS
    )


def _help() -> str:
    verbs = "\n".join(f"  {verb:10}{words}" for verb, words in VERBS.items())
    return (
        "Train a CNN and watch what it learns, live on TensorBoard.\n\n"
        f"{verbs}\n\n{_listed()}\n\ntrain.py fit RECIPE --help shows a recipe's knobs."
    )


def _listed() -> str:
    modules = {name: importlib.import_module(f"{recipes.__name__}.{name}") for name in _names()}
    return "recipes:\n" + "\n".join(
        f"  {name:10}{(inspect.getdoc(m) or '').splitlines()[0]}" for name, m in modules.items()
    )


def _parsed(
    name: str, words: Sequence[str], run: Run | None
) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """The recipe's knobs, the trainer's options and the folder that were asked for, on top of those of a run."""
    recipe = recipe_of(name)
    about = (inspect.getdoc(recipe) or "").split("\nArgs:")[0]
    parser = jsonargparse.ArgumentParser(prog=f"train.py fit {name}", description=about, exit_on_error=False)
    parser.add_function_arguments(recipe, as_group=False)
    parser.add_argument(
        "--folder", type=str | None, default=None, help="of the run; the next free one in runs/ without it"
    )
    parser.add_argument("--resume", type=str | None, default=None, help="the folder of a run to go on with")
    parser.add_argument(
        "--trainer", type=dict[str, Any], default={}, help="--trainer.X: any argument of Lightning's Trainer"
    )
    if run is not None:
        parser.set_defaults({**run.knobs, "trainer": dict(run.trainer)})
    asked = vars(_parse(parser, words))
    knobs = {knob: asked[knob] for knob in inspect.signature(recipe).parameters}
    return knobs, _checked(asked["trainer"]), asked["folder"]


def _parse(parser: jsonargparse.ArgumentParser, words: Sequence[str]) -> jsonargparse.Namespace:
    try:
        return parser.parse_args(list(words))
    except jsonargparse.ArgumentError as error:
        said = str(error).strip()
        known = [option for action in parser._actions for option in action.option_strings]
        if wrong := re.search(r"(?:Unrecognized arguments|Option).*?(--?[\w.]+)", said):
            raise ValueError(f"no option {wrong[1]!r}; {nearest(wrong[1], known)}") from None
        raise ValueError(said) from None


def _checked(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The trainer's options, each known to Lightning and none of those that are ours."""
    known = [name for name in inspect.signature(pl.Trainer).parameters if name not in OWNED]
    for name in options or {}:
        if name in OWNED:
            raise ValueError(f"--trainer.{name} is the recipe's own; change it in Python")
        if name not in known:
            raise ValueError(f"no option --trainer.{name}; {nearest(name, known)}")
    return dict(options or {})


def _resumed(words: Sequence[str]) -> tuple[Path, Run] | None:
    """The folder after `--resume`, and its run; it decides the other defaults, so it is read before they are."""
    for place, word in enumerate(words):
        if word == "--resume" and place + 1 < len(words):
            folder = Path(words[place + 1])
        elif word.startswith("--resume="):
            folder = Path(word.removeprefix("--resume="))
        else:
            continue
        run = runs.read(folder)
        runs.checkpoint(folder)
        return folder, run
    return None


def _last(resumed: tuple[Path, Run] | None) -> Path | None:
    return runs.checkpoint(resumed[0]) if resumed else None


def _claimed(folder: str | None, name: str) -> Path:
    """The folder for a fresh run; processes that this one starts find it in the environment."""
    if "FULGURITE_RUN" in os.environ and rank_zero_only.rank != 0:
        return Path(os.environ["FULGURITE_RUN"])
    claimed = Path(folder) if folder else runs.next_folder(name)
    if (claimed / runs.FILE).exists():
        raise ValueError(
            f"{claimed} holds a run already; go on with it by --resume {claimed}, or choose another --folder"
        )
    os.environ["FULGURITE_RUN"] = str(claimed)
    return claimed


def _trainer(
    recipe: Recipe, folder: Path, options: Mapping[str, Any], resumed: tuple[Path, Run] | None
) -> pl.Trainer:
    purge = None
    if resumed:
        import torch

        purge = torch.load(_last(resumed), weights_only=True, map_location="cpu")["global_step"] + 1
    unvalidated = options.get("limit_val_batches") == 0
    keep = ModelCheckpoint(
        folder / "checkpoints",
        filename="best",
        monitor=None if unvalidated else "val/accuracy",
        mode="max",
        save_last=True,
        enable_version_counter=False,
    )
    return pl.Trainer(
        **{
            "max_epochs": recipe.epochs,
            "log_every_n_steps": 10,
            **options,
            "logger": TensorBoardLogger(folder, name="", version="", purge_step=purge),
            "callbacks": [*recipe.probes, keep],
        }
    )


def _close(trainer: pl.Trainer, recipe: Recipe, folder: Path) -> None:
    """Measure the best weights on the test images, and say where everything is."""
    if trainer.fast_dev_run or trainer.interrupted:
        return
    trainer.test(recipe.model, recipe.data, ckpt_path=runs.checkpoint(folder, "best"), weights_only=True)
    rank_zero_info(f"the run is in {folder}; look again: python train.py probe {folder}")
