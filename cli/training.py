"""The training of a run, from the start or from its checkpoint, and the test at its end."""

import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_info

from fulgurite.cli.checkpointing import (
    AtomicIO,
    Checkpoints,
    Note,
    Patience,
    notes_of,
    resume_point,
    state_of,
)
from fulgurite.cli.errors import program
from fulgurite.cli.interruptions import Signals, explained, note_job
from fulgurite.cli.layer_table import summary
from fulgurite.cli.run_lock import is_main_process
from fulgurite.cli.run_page import RunPage
from fulgurite.cli.start_errors import starting
from fulgurite.cli.tensorboard_events import Events
from fulgurite.cli.trainer_options import make_trainer, use_matrix_units
from fulgurite.data.image_files import printable
from fulgurite.models.dotted_path_networks import trust
from fulgurite.models.weights import read as read_weights
from fulgurite.probes.atomic import write_atomic
from fulgurite.probes.counted import counted
from fulgurite.recipes import calibration_report, plain_values
from fulgurite.recipes import run as runs
from fulgurite.recipes.analysis import Analysis
from fulgurite.recipes.recipe import Recipe, weights_follow
from fulgurite.recipes.run import Run


def train(
    name: str, build: Callable, args: Namespace, folder: Path, words: Sequence[str], *, resumed: bool
) -> None:
    """Train and test a recipe, and keep in the folder all that is needed to resume after an interruption.

    A resumed run that has no checkpoint yet starts again; one that is finished is not changed.

    Args:
        name: the recipe's.
        build: builds it from its knobs.
        args: the `knobs`, and options of the `trainer`.
        folder: the run's.
        words: those of the command, by which a requeued SLURM job finds its run.
        resumed: whether the run was begun before.

    Raises:
        ValueError: the run cannot be resumed: a checkpoint is damaged, or another network's.
        OSError: the disk is full.
        Ended: by a signal.
    """
    progress = Checkpoints(folder / "checkpoints")
    signals = Signals()
    resumed_at = 0

    def again(*, full: bool = False) -> str:
        if not (folder / runs.FILE).exists():
            return "nothing was trained; begin again with the same command"
        if full and not list((folder / "checkpoints").glob("*.ckpt")):  # the folder is removed, see `fit`
            return "no checkpoint could be written; then begin again with the same command"
        done = progress.epochs or resumed_at
        finished = f"after {counted(done, 'epoch')}" if done else "before the end of the first epoch"
        command = shlex.join([*program(), "fit", name, "--resume", str(folder)])
        return f"the run stopped {finished}; go on with it: {command}"

    with signals.watched(), explained(folder, again):
        last = resume_point(folder / "checkpoints") if resumed else None
        resumed_at = 0 if last is None else state_of(last)["epoch"] + 1
        if resumed and last is None:
            _check_unfinished(folder, name)
        weights = read_weights(last) if last else {}
        with weights_follow("normalise.mean" in weights, download=not resumed):
            recipe = build(**args.knobs)
        if isinstance(recipe, Analysis):
            recipe.run(folder, Run(name, args.knobs, args.trainer, theme=args.theme), resumed=resumed)
            return
        if last is not None:  # before anything is written into the run, and before `takes` reads it
            recipe.load(weights, source=str(last))
            _check_best(folder)
            _check_tested(folder)
        run = Run(name, args.knobs, args.trainer, images=recipe.takes(), theme=args.theme)
        events = _opened(folder, run, last, words, resumed=resumed)
        if last is not None and last.name != "last.ckpt" and is_main_process():  # it is damaged, or older
            write_atomic(folder / "checkpoints" / "last.ckpt", last.read_bytes())
        validated = args.trainer.get("limit_val_batches") != 0
        progress.monitor = recipe.monitor if validated else None
        others: list[pl.Callback] = [Note(run, folder)] if last is not None else []
        if validated and recipe.patience is not None:
            others.append(Patience(recipe.monitor, patience=recipe.patience, mode="max"))
        shown = [RunPage(events, run, recipe, words)]
        _fit(recipe, folder, run, last, events, [*others, *shown, signals, progress])


def _opened(folder: Path, run: Run, last: Path | None, words: Sequence[str], *, resumed: bool) -> Events:
    """The event writer of a run; a fresh run is recorded in its folder."""
    if last is not None:
        if is_main_process():
            _tidy(folder)
        state = state_of(last)
        return Events(folder, lengths=notes_of(state).get("events"), step=state["global_step"])
    if resumed:
        rank_zero_info(f"no epoch of {printable(folder)} was finished: it starts again")
    begun = (folder / runs.FILE).exists()
    if is_main_process() and not run.trainer.get("fast_dev_run"):
        (folder / runs.TESTED).unlink(missing_ok=True)
        _tidy(folder)
        run.write(folder)
        note_job(folder, words)
    return Events(folder, lengths={} if begun else None)


def _fit(
    recipe: Recipe, folder: Path, run: Run, last: Path | None, events: Events, own: Sequence[pl.Callback]
) -> None:
    use_matrix_units(run.trainer.get("accelerator", "auto"))
    # `RunPage` writes the knobs, of which the model's own hyperparameters are some
    options = {
        "max_epochs": recipe.epochs,
        "log_every_n_steps": 10,
        "enable_autolog_hparams": False,
        **run.trainer,
    }
    # our own summary instead, which counts more than Lightning's
    summarised = options.get("enable_model_summary") is not False and not options.get("barebones")
    trainer = make_trainer(
        **{**options, "enable_model_summary": False},
        logger=events,
        default_root_dir=folder,
        plugins=[AtomicIO()],
        callbacks=[*recipe.probes, *recipe.callbacks, *own],
    )
    # with max_steps, Lightning treats each checkpoint as one within an epoch, and skips the next epoch
    trainer.fit_loop._iteration_based_training = lambda: False
    rank_zero_info(f"{run.recipe} into {printable(folder)}")
    if summarised:
        rank_zero_info(summary(recipe))
    with starting(trainer, last):
        trainer.fit(recipe.model, recipe.data, ckpt_path=last, weights_only=True)
    if run.trainer.get("fast_dev_run"):
        return
    # processes that were not started by the main one did not get the folder
    folder = trainer.strategy.broadcast(folder)
    trained = last is None or trainer.global_step > state_of(last)["global_step"]
    if not trained and (message := _tested(folder, trainer.global_step)):
        rank_zero_info(f"{printable(folder)} is finished: {message}; to train on, ask for more --epochs")
        return
    best = _best(folder)
    if message := _ended_early(trainer, best):
        rank_zero_info(message)
    device = trainer.strategy.root_device
    found = trainer.test(recipe.model, recipe.data, ckpt_path=best, weights_only=True)
    if trainer.is_global_zero:
        result = {"checkpoint": best.name, "step": trainer.global_step, "metrics": dict(*found)}
        calibrated = calibration_report.report_calibration(recipe, device=device) if found else None
        if calibrated is not None:
            result["calibration"] = calibrated.as_dict(bins=False)
        write_atomic(folder / runs.TESTED, json.dumps(result, indent=2) + "\n")
        if calibrated is not None:
            calibrated.write(folder)
            rank_zero_info(calibrated.line())
        if getattr(recipe.data, "tested_on", "test") == "validation":
            rank_zero_info(
                "there are no test images: these numbers are of the validation images, by which the weights "
                "were chosen, and so a little too good"
            )
    place = printable(folder)
    again = f"{trust(run.knobs.get('network'))}{shlex.join(program())} probe {place}"
    rank_zero_info(f"the run is in {place}; run its probes again: {again}")


def _check_unfinished(folder: Path, name: str) -> None:
    """Check that a run without checkpoints never had any, so that it can start again."""
    if (folder / runs.TESTED).exists():
        raise ValueError(f"there is no checkpoint left in {folder}, which is finished; begin another run")
    if (folder / f"{name}.json").exists():
        runs.checkpoint(folder)


def _tidy(folder: Path) -> None:
    """Remove temporary files that a killed process has left."""
    for file in folder.rglob(".*.tmp"):
        if re.fullmatch(r"\..+\.[0-9a-f]{16}\.tmp", file.name) and file.is_file() and not file.is_symlink():
            file.unlink()


def _best(folder: Path) -> Path:
    """The checkpoint that a run is tested with at its end: the best, or the last without one."""
    return runs.checkpoint(folder, "best" if (folder / "checkpoints" / "best.ckpt").is_file() else "last")


def _check_best(folder: Path) -> None:
    """Check that the checkpoint for the test at the end can be read."""
    try:
        read_weights(_best(folder))
    except ValueError as error:
        raise ValueError(f"{error}; or remove it, and the run continues without it") from None


def _check_tested(folder: Path) -> None:
    """Check that results of an earlier test can be read, or do not exist."""
    file = folder / runs.TESTED
    try:
        if os.path.lexists(file) and not file.is_file():
            raise ValueError(f"{file} is not a regular file")
        if file.is_file() and not isinstance(plain_values.read_json(file), dict):
            raise ValueError(f"{file} is damaged: it holds no object of names and values")
    except ValueError as error:
        raise ValueError(f"{error}; remove it, and the run continues and is tested again") from None


def _tested(folder: Path, step: int) -> str:
    """The results of the test after this step, in words; nothing without a test."""
    if not (folder / runs.TESTED).exists():
        return ""
    result = plain_values.read_json(folder / runs.TESTED)
    if (
        not isinstance(result, dict)
        or result.get("step") != step
        or not isinstance(result.get("metrics"), dict)
    ):
        return ""
    return ", ".join(f"{name} {_short(value)}" for name, value in result["metrics"].items()) or "not tested"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ended_early(trainer: pl.Trainer, best: Path) -> str:
    """A line for a training that early stopping has ended; nothing for any other."""
    stop = trainer.early_stopping_callback
    if stop is None or stop.wait_count < stop.patience or stop.stopped_epoch + 1 == trainer.max_epochs:
        return ""
    epoch = state_of(best)["epoch"] + 1
    return (
        f"training ended early, after epoch {stop.stopped_epoch + 1}: {stop.monitor} was best after epoch "
        f"{epoch}, {float(stop.best_score):.4f}, and patience is {stop.patience}"
    )
