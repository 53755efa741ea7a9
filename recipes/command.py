"""The command: fit a recipe; validate, test or probe a run."""

import importlib
import inspect
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from fulgurite import recipes
from fulgurite.data.image_files import printable
from fulgurite.models.weights import load
from fulgurite.models.weights import read as read_weights
from fulgurite.probes.record import nearest
from fulgurite.recipes import judged, options, plain
from fulgurite.recipes import run as runs
from fulgurite.recipes.claim import claimed, is_main_process
from fulgurite.recipes.interruptions import Ended, requeued
from fulgurite.recipes.recipe import Recipe, weights_follow
from fulgurite.recipes.starting import MISTAKES, progress, starting
from fulgurite.recipes.study import Study, trained
from fulgurite.recipes.trainer_options import make_trainer
from fulgurite.recipes.training import train

VERBS = {
    "fit": "train: fit RECIPE [--knob VALUE] [--trainer.X VALUE], or go on: fit RECIPE --resume RUN",
    "validate": "loss and accuracy on the validation images: validate RUN",
    "test": "loss, accuracy and robustness on the test images: test RUN [--radius 8/255]",
    "probe": "look at what a run has learnt with all its probes, and write the pictures as PNG: probe RUN",
    "predict": "classify files and folders to CSV: predict RUN PATH... [--explain]",
    "advise": "which way to fine-tune on your images: advise folder --path DATA --network NAME",
}
LONGEST = 2000
"""Characters of an error."""
APART = ("predict", "advise")  # verbs with a module of their own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake in what was asked is one line and exit status 2.

    Status 1 is for work that was done in part: `predict` could not read all of the images. A signal that ends
    it gives 128 and its number, and a line that says how to go on.

    With FULGURITE_TRACEBACK set in the environment, it is a traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _hush()
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
        elif words[0] not in VERBS:
            raise ValueError(f"no command {words[0]!r}; {nearest(words[0], VERBS)}")
        elif words[0] == "fit":
            fit(words[1:])
        elif words[0] in APART:
            verb = importlib.import_module(f"{recipes.__name__}.{words[0]}")
            return getattr(verb, words[0])(words[1:]) or 0
        else:
            look(words[0], words[1:])
    except (*MISTAKES, RuntimeError) as error:
        memory = "allocate memory" in str(error)  # by which torch says so on a CPU
        if not (memory or isinstance(error, MISTAKES)):
            raise
        if os.environ.get("FULGURITE_TRACEBACK"):
            raise
        print(f"error: {_in_a_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Ended as end:
        if is_main_process():
            print(_in_a_line(end), file=sys.stderr)
        return 128 + end.signum
    return 0


def _in_a_line(error: BaseException) -> str:
    """What it says, in one line that a terminal can print, whatever a file or a name has put into it."""
    said = " ".join(str(error).split()) or type(error).__name__
    said = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in said)
    return said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."


def fit(words: Sequence[str]) -> None:
    """Train a recipe into a fresh folder, or go on with a run in its own."""
    if not words or words[0].startswith("-"):
        print(_help())
        return
    name, rest = words[0], words[1:]
    build = recipe_of(name)
    resumed = _resumed(name, rest)
    again = None if resumed else requeued(runs.ROOT / name, words, _after("--folder", rest))
    resumed = resumed or again
    run = runs.read(resumed) if resumed else None
    asked = options.for_fit(name, build, rest, run)
    if resumed and run is not None:
        runs.check_goes_on(run, asked.knobs)
        plain.check_inside(resumed)
    if resumed and asked.folder and not again:
        raise ValueError(f"a run goes on in its own folder, {resumed}; leave out --folder {asked.folder}")
    if idle := [limit for limit in ("max_epochs", "max_steps") if asked.trainer.get(limit) == 0]:
        raise ValueError(f"--trainer.{idle[0]} 0 trains nothing; wanted at least 1")
    with claimed(resumed or asked.folder, root=runs.ROOT / name) as own:
        if not resumed and list(own.folder.glob("checkpoints/*.ckpt")):
            raise ValueError(
                f"{own.folder} holds a run already; go on with it by --resume {own.folder}, or choose "
                "another --folder"
            )
        noted = (own.folder / runs.FILE).exists()
        try:
            train(name, build, asked, own.folder, words, resumed=bool(resumed))
        except MISTAKES:
            if not list(own.folder.glob("checkpoints/*.ckpt")):
                own.remove(content=True)
                if not noted:  # a folder that was there keeps nothing of the run
                    (own.folder / runs.FILE).unlink(missing_ok=True)
            raise


def look(verb: str, words: Sequence[str]) -> None:
    """Validate, test or probe the weights of a run."""
    asked = options.for_look(verb, VERBS[verb], words)
    folder = Path(asked.run)
    run = runs.read(folder)
    plain.check_inside(folder)
    checkpoint = runs.checkpoint(folder, asked.checkpoint)
    build = recipe_of(run.recipe)
    knobs = options.knobs(build, run)
    # a run that was trained without probes can be looked at all the same
    if verb == "probe" and knobs.get("every") == 0:
        knobs["every"] = 1
    state = read_weights(checkpoint)
    with weights_follow("normalise.mean" in state, download=False):
        recipe = trained(build(**knobs))
    load(recipe.model.network, state, source=str(checkpoint))
    logger: TensorBoardLogger | bool = False
    if verb == "probe":
        logger = TensorBoardLogger(folder / "probe", name="", version="")
        for probe in recipe.probes:
            probe.pictures = folder / "pictures"
    trainer = make_trainer(logger=logger, callbacks=list(recipe.probes) if logger else [], **asked.trainer)
    action = trainer.test if verb == "test" else trainer.validate
    # says its step too; other files are but weights
    at = progress(checkpoint)
    ours = checkpoint if at else None
    threat = judged.threat_of(recipe, asked) if verb == "test" else None
    if threat is not None:
        judged.check_place(folder)
    with starting(trainer, ours):
        action(recipe.model, recipe.data, ckpt_path=ours, weights_only=True)
    if threat is not None and trainer.is_global_zero:
        step = at[1] if at else 0
        many, whole = asked.images or judged.IMAGES, asked.ensemble is not False
        judged.judge(recipe, folder, threat, images=many, ensemble=whole, step=step)
    if verb == "probe":
        rank_zero_info(f"pictures in {printable(folder / 'pictures')}")


def recipe_of(name: str) -> Callable[..., Recipe | Study]:
    """The recipe of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in _names():
        raise ValueError(f"no recipe {name!r}; {nearest(name, _names())}")
    return importlib.import_module(f"{recipes.__name__}.{name}").recipe


def _names() -> list[str]:
    """The modules beside this one that define a `recipe`, told without importing any."""
    files = (file for place in recipes.__path__ for file in Path(place).glob("*.py"))
    return sorted(file.stem for file in files if "\ndef recipe(" in file.read_text(encoding="utf-8"))


def _help() -> str:
    verbs = "\n".join(f"  {verb:10}{words}" for verb, words in VERBS.items())
    modules = {name: importlib.import_module(f"{recipes.__name__}.{name}") for name in _names()}
    lines = {name: (inspect.getdoc(module) or "").splitlines()[0] for name, module in modules.items()}
    return (
        f"Train a CNN and watch what it learns, live on TensorBoard.\n\n{verbs}\n\nrecipes:\n"
        + "\n".join(f"  {name:16}{line}" for name, line in lines.items())
        + "\n\ntrain.py fit RECIPE --help shows a recipe's knobs."
    )


def _resumed(name: str, words: Sequence[str]) -> Path | None:
    """The folder after `--resume`: its run decides the other defaults, so it is read before they are."""
    if (folder := _after("--resume", words)) is None:
        return None
    if (run := runs.read(Path(folder))).recipe != name:
        raise ValueError(f"{folder} is a run of {run.recipe!r}, not of {name!r}")
    return Path(folder)


def _after(option: str, words: Sequence[str]) -> str | None:
    """The word after an option, the last time that it is there."""
    found = None
    for place, word in enumerate(words):
        if word.startswith(f"{option}="):
            found = word.removeprefix(f"{option}=")
        elif word == option and place + 1 < len(words):
            found = words[place + 1]
    return found


def _hush() -> None:
    """Silence what Lightning says of itself, and of what this command does on purpose."""
    for said in (
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        ".*does not have many workers which may be a bottleneck",
        "The number of training batches .* is smaller than the logging interval",
        "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
        "Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", said)
    tips = "lightning.pytorch.utilities.rank_zero"
    logging.getLogger(tips).addFilter(lambda record: "Tip:" not in record.getMessage())
