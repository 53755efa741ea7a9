"""Checkpoints of a run: the best and the last, written atomically, each with its score."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from fulgurite.cli.start_errors import progress
from fulgurite.cli.tensorboard_events import Events
from fulgurite.probes.atomic import atomic_file
from fulgurite.recipes.run import Run

_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc|\.dev|\.post)\d+)*(\+[a-z0-9.]+)?")


class AtomicIO(TorchCheckpointIO):
    """Writes each checkpoint atomically: after a kill or on a full disk, the old one remains."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write it to a temporary file in the same folder, flush it, and rename it."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            torch.save(checkpoint, file)


class Checkpoints(Checkpoint):
    """Keeps the last checkpoint of a run, and the best by a metric; larger is better.

    The state is taken at the end of an epoch, after all other callbacks, and written when the metrics of the
    epoch are in the run's event files, with the lengths of these: a resumed run continues exactly after the
    events of its checkpoint. The best is written before the last, from the same state. The score to beat is
    the one in the best checkpoint, whichever checkpoint a run is resumed from.

    Args:
        folder: where `best.ckpt` and `last.ckpt` go.
        monitor: the metric; there is no best without one.
    """

    def __init__(self, folder: Path, monitor: str | None = None):
        self.folder, self.monitor = folder, monitor
        self.best: float | None = None
        self.epochs = 0
        self._measured: tuple[int, float] = (-1, math.nan)  # global step and score
        self._pending: tuple[dict[str, Any], list[str]] | None = None

    @property
    def state_key(self) -> str:
        """One in a run."""
        return "Checkpoints"

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, and its metric."""
        return {"monitor": self.monitor, "best": self.best}

    def on_load_checkpoint(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        checkpoint: dict[str, Any],
    ) -> None:
        """Restore the number of finished epochs."""
        self.epochs = checkpoint["epoch"] + 1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Restore the best score."""
        kept = score_of(self.folder / "best.ckpt", self.monitor) if trainer.is_global_zero else None
        self.best = trainer.strategy.broadcast(kept)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Record the score; within an epoch, keep the weights if it is the best."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING or self.monitor is None:
            return
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(f"no metric {self.monitor!r}; logged: {', '.join(trainer.callback_metrics)}")
        self._measured = trainer.global_step, float(trainer.callback_metrics[self.monitor])
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and self._is_best(trainer):
            self._take(trainer, ["best"])
            self._write(trainer, whole=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Copy the current state."""
        self._take(trainer, ["best", "last"] if self._is_best(trainer) else ["last"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Write it, now that the metrics of its epoch are logged."""
        self._write(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Write the state of the last epoch."""
        self._write(trainer)

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        """Write the state of the last finished epoch, if it is not yet written."""
        self._write(trainer)

    def _is_best(self, trainer: pl.Trainer) -> bool:
        step, score = self._measured
        if step != trainer.global_step or math.isnan(score) or (self.best is not None and score <= self.best):
            return False
        self.best = score
        return True

    def _take(self, trainer: pl.Trainer, names: list[str]) -> None:
        if not trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            # tensors do not change until the next step; their containers may, before the state is written
            self._pending = _copied(state), names

    def _write(self, trainer: pl.Trainer, *, whole: bool = True) -> None:
        if self._pending is None:
            return
        state, names = self._pending
        events = next((logger for logger in trainer.loggers if isinstance(logger, Events)), None)
        lengths = events.lengths() if events is not None and trainer.is_global_zero else {}
        state["callbacks"][self.state_key] |= {"events": lengths, "whole": whole}
        for name in names:
            trainer.strategy.save_checkpoint(state, self.folder / f"{name}.ckpt")
        self._pending = None
        if whole:
            self.epochs = state["epoch"] + 1


class Patience(EarlyStopping):
    """Stops a run that no longer improves; a resumed run has the patience of its new options."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counter from the checkpoint, but not the patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Do not train a resumed run whose training had ended before its test."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class Note(pl.Callback):
    """Writes the options of a resumed run after its first step, when they are known to work."""

    def __init__(self, run: Run, folder: Path):
        self.run, self.folder, self.noted = run, folder, False

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Write it, once."""
        rehearsal = trainer.fast_dev_run  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.is_global_zero and not rehearsal and not self.noted:
            self.run.write(self.folder)
        self.noted = True


def resume_point(folder: Path) -> Path | None:
    """The checkpoint to resume from: the newest, which is the last one, except after a kill or damage.

    None where there is none. If the last one cannot be read, the best is used, with a warning.

    Raises:
        ValueError: none can be read.
    """
    found: dict[Path, int] = {}
    damaged: dict[Path, ValueError] = {}
    for path in (folder / "last.ckpt", folder / "best.ckpt"):
        if path.is_dir():
            raise ValueError(f"{path} is a folder; wanted a checkpoint; move it elsewhere")
        try:
            if path.exists() and notes_of(state := state_of(path)).get("whole", True):
                found[path] = state["global_step"]
        except ValueError as error:
            damaged[path] = error
    if damaged and not found:
        finished = (folder.parent / "test.json").exists()
        again = f"without checkpoints in {folder}, --resume starts again"
        wayout = "begin another run" if finished else again
        raise ValueError(f"{next(iter(damaged.values()))}; {wayout}")
    if not found:
        return None
    newest = max(found, key=found.__getitem__)
    if folder / "last.ckpt" in damaged:
        rank_zero_warn(f"{damaged[folder / 'last.ckpt']}; the run goes on from {newest}")
    return newest


def state_of(path: Path) -> Mapping[str, Any]:
    """The content of a checkpoint of a run; no code in it is run.

    Raises:
        ValueError: it is damaged, or no checkpoint of a run.
    """
    if progress(path) is None:
        raise ValueError(f"{path} holds only weights, and no training that could be resumed")
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, kind in {"callbacks": dict, "loops": dict, "optimizer_states": list}.items():
        if not isinstance(state.get(name), kind):
            raise ValueError(f"{path} is damaged: it holds no {name}")
    if wrong := next((name for name, one in state["callbacks"].items() if not isinstance(one, dict)), None):
        raise ValueError(f"{path} is damaged: it holds no state of the callback {wrong}")
    if not _VERSION.fullmatch(str(state["pytorch-lightning_version"])):
        raise ValueError(f"{path} is damaged: it names no version of Lightning")
    _check_optimizers(path, state)
    return state


def _check_optimizers(path: Path, state: Mapping[str, Any]) -> None:
    """Check that there are states of optimizers, and that they fit the weights.

    Raises:
        ValueError: there are none after the first step, or of other shapes.
    """
    if state["global_step"] and not state["optimizer_states"]:
        raise ValueError(
            f"{path} is damaged: it holds no state of an optimizer after {state['global_step']} steps"
        )
    shapes = {tuple(weight.shape) for weight in state["state_dict"].values() if isinstance(weight, Tensor)}
    for optimizer in state["optimizer_states"]:
        own = optimizer.get("state") if isinstance(optimizer, dict) else None
        if not isinstance(own, dict) or not all(isinstance(one, dict) for one in own.values()):
            raise ValueError(f"{path} is damaged: what it holds of an optimizer is no state of one")
        for value in (value for one in own.values() for value in one.values()):
            if isinstance(value, Tensor) and value.dim() and tuple(value.shape) not in shapes:
                raise ValueError(
                    f"{path} is damaged: its optimizer's state is of a weight of {tuple(value.shape)}, and "
                    "the network has none"
                )


def score_of(path: Path, monitor: str | None) -> float | None:
    """The score by this metric that a best checkpoint was kept for; None where there is none."""
    if not path.exists():
        return None
    notes = notes_of(state_of(path))
    score = notes.get("best") if notes.get("monitor") == monitor else None
    return float(score) if isinstance(score, int | float) else None


def notes_of(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Entries of `Checkpoints` in a checkpoint: `monitor`, `best`, `events`, and if its epoch is `whole`."""
    notes = state["callbacks"].get("Checkpoints")
    return notes if isinstance(notes, dict) else {}


def _copied(state: Any) -> Any:
    """Dicts, lists and tuples copied, all else as it is."""
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_copied(value) for value in state)
    return state
