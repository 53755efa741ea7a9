"""Page of a run in TensorBoard: layout, command, versions, layers, hyperparameters."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from torch.utils.tensorboard.summary import custom_scalars, hparams

from fulgurite.callbacks.metrics import Metrics
from fulgurite.cli.errors import program
from fulgurite.cli.layer_table import summary
from fulgurite.cli.tensorboard_events import Events
from fulgurite.recipes.recipe import Recipe
from fulgurite.recipes.run import Run

RATE = "learning rate"
FINAL = ("val/loss", "test/loss", "test/accuracy")
"""Metrics in the table of hyperparameters, besides the one that the best checkpoint is chosen by."""
LAYOUT: Mapping[str, Mapping[str, Sequence[str]]] = {
    "training": {
        "loss": ("^(train|val|test)/loss$",),
        "accuracy": ("^(train|val|test)/(robust )?accuracy$", "^(val|test)/exact match$"),
        RATE: (f"^{RATE}",),
    },
}
"""Charts by group, each of the tags that match: the order of TensorBoard's custom scalars."""


class RunPage(pl.Callback):
    """Writes the run's page when a fresh training starts, and the learning rates with its losses.

    Args:
        events: the run's logger.
        run: the content of its `run.json`.
        recipe: the recipe that is trained.
        words: those of the command.
    """

    def __init__(self, events: Events, run: Run, recipe: Recipe, words: Sequence[str]):
        self.events, self.run, self.recipe, self.words = events, run, recipe, words

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Give the logger the knobs, which it writes to `hparams.yaml`."""
        self.events.hparams.update(knobs_of(self.run))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Write layout, hyperparameters and text, once in a run."""
        if trainer.global_step or not trainer.is_global_zero:
            return
        writer = self.events.experiment
        files = writer._get_file_writer()
        files.add_summary(custom_scalars(_layout(self.recipe)))
        for part in hparams(
            knobs_of(self.run), dict.fromkeys(dict.fromkeys((self.recipe.monitor, *FINAL)), 0.0)
        ):
            files.add_summary(part)
        writer.add_text("run", page(self.run, self.recipe, self.words), 0)
        writer.flush()

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Log the learning rate of each group of parameters, as often as losses are."""
        every = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.global_step % max(1, every) or not trainer.is_global_zero:
            return
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        names = [str(group.get("name") or place) for place, group in enumerate(groups)]
        rates = {name: float(group["lr"]) for name, group in zip(names, groups, strict=True)}
        if len(set(rates.values())) == 1:
            self.events.log_metrics({RATE: next(iter(rates.values()))}, trainer.global_step)
        else:
            self.events.log_metrics(
                {f"{RATE}/{name}": rate for name, rate in rates.items()}, trainer.global_step
            )


def knobs_of(run: Run) -> dict[str, bool | int | float | str]:
    """The recipe and its knobs, those of the Trainer too, as the table of hyperparameters takes them."""
    own = {
        "recipe": run.recipe,
        **run.knobs,
        **{f"trainer.{name}": value for name, value in run.trainer.items()},
    }
    return {
        name: value if isinstance(value, bool | int | float) else str(value) for name, value in own.items()
    }


def page(run: Run, recipe: Recipe, words: Sequence[str]) -> str:
    """Command, versions and layers, as Markdown."""
    versions = "\n".join(f"| {name} | {version} |" for name, version in run.versions.items())
    commit = f"\n| commit | {run.commit} |" if run.commit else ""
    layers = "\n".join(f"    {line}" for line in summary(recipe).splitlines())
    command = shlex.join([*program(), "fit", *words])
    return f"    {command}\n\n| package | version |\n|---|---|\n{versions}{commit}\n\n{layers}\n"


def _layout(recipe: Recipe) -> dict[str, dict[str, list[Any]]]:
    """The charts of training first; then those of each probe that logs numbers, and what probes cost."""
    charts = {
        group: {name: ["Multiline", list(tags)] for name, tags in own.items()}
        for group, own in LAYOUT.items()
    }
    charts["probes"] = {
        title: ["Multiline", [tags]]
        for probe in recipe.probes
        if probe.logs_numbers
        for title, tags in _charts_of(re.escape(probe.name), each=isinstance(probe, Metrics)).items()
    }
    charts["seconds of each probe"] = {"seconds": ["Multiline", ["^seconds/"]]}
    return charts


def _charts_of(name: str, *, each: bool) -> dict[str, str]:
    """The scalars of a probe; those of each class in a separate chart."""
    if not each:
        return {name: f"^{name}( of .* images)?/"}
    return {name: f"^{name}/((?! of ).)*$", f"{name} of each class": f"^{name}/.* of "}
