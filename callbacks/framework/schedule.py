"""The schedule of a probe: before training, every n epochs, within a budget; and failure handling."""

from abc import ABC, abstractmethod
from time import perf_counter
from typing import Literal

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from fulgurite.callbacks.boards.tensorboard import board_of, require_board
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.distributed import broadcast
from fulgurite.callbacks.framework.exchange import exchange, in_words

FAILURES = 3  # in a row, after which a probe looks no more


class ScheduledCallback(pl.Callback, ABC):
    """Looks before training, after every `every`th epoch and at the end; a subclass says how it looks.

    The arguments are those of `ProbeCallback`.
    """

    def __init__(
        self,
        *,
        every: int,
        budget: Budget | float | None,
        on_error: Literal["warn", "raise"],
        name: str | None,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"every={every}; wanted epochs from one look to the next, at least 1")
        if on_error not in ("warn", "raise"):
            raise ValueError(f'on_error={on_error!r}; wanted "warn" or "raise"')
        self.every, self.on_error, self.name = every, on_error, name or type(self).__name__
        self.budget = Budget(budget) if isinstance(budget, int | float) else budget
        self.seconds = 0.0
        self._failures, self._warned, self._stretched = 0, False, False
        self._began, self._first_epoch, self._checkpoint_step, self._seen_at = 0.0, 0, 0, -1

    @abstractmethod
    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check all that can be checked before the first look."""

    @abstractmethod
    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, label: str) -> str | None:
        """Look once, on all processes; what went wrong, if anything did, in words."""

    @abstractmethod
    def _pin_film(self, trainer: pl.Trainer) -> None:
        """Pin the film of the run."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check what can be checked before there are data."""
        require_board(trainer)
        names = [probe.name for probe in _probes(trainer)]
        if names.count(self.name) > 1:
            raise ValueError(
                f"{names.count(self.name)} probes are called {self.name!r}; give each its own name="
            )
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise ValueError(
                f"probes look at a whole network, but {type(trainer.strategy).__name__} splits it among "
                'processes; train with strategy="ddp" or on one device'
            )

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        """Remember the step that the weights are from: a validating trainer is at step 0."""
        self._checkpoint_step = checkpoint.get("global_step", 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the untrained network."""
        self._began, self._first_epoch, self._checkpoint_step = perf_counter(), trainer.current_epoch, 0
        self._seen_at = trainer.global_step if trainer.global_step else -1  # a resumed run has been looked at
        self._prepare(trainer, pl_module)
        self.seconds = perf_counter() - self._began
        if trainer.global_step == 0:
            self._look_once(trainer, pl_module, 0, "start")
        if self._is_first(trainer) and (board := board_of(trainer)) is not None:
            rank_zero_info(
                f"to watch: tensorboard --logdir {board.folder} --samples_per_plugin images=500   "
                "(without it, ten are kept)"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look, if it is time."""
        epoch = trainer.current_epoch + 1
        last = epoch == trainer.max_epochs
        if self._failures < FAILURES and (
            last or (epoch % self.every == 0 and self._affordable(trainer, epoch))
        ):
            self._look_once(trainer, pl_module, trainer.global_step, str(epoch))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at a finished network."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._prepare(trainer, pl_module)
            self._look_once(trainer, pl_module, self._checkpoint_step or trainer.global_step, "")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look, if training ended between two looks, and pin the film of the run."""
        if self._seen_at != trainer.global_step and self._failures < FAILURES:
            self._look_once(trainer, pl_module, trainer.global_step, str(trainer.current_epoch))
        if failure := exchange(dict, lambda _: self._pin_film(trainer)):
            self._complain(failure)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Pin what there is of the film, without the other processes: they may have ended already."""
        if isinstance(exception, KeyboardInterrupt):
            try:
                self._pin_film(trainer)
            except Exception as error:
                rank_zero_warn(f"{self.name} could not write its film: {in_words(error)}")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what looking took."""
        if self._is_first(trainer) and self._began:
            probes = _probes(trainer)
            total, run = sum(p.seconds for p in probes), perf_counter() - self._began
            each = ", ".join(f"{p.name} {p.seconds:.1f} s" for p in sorted(probes, key=lambda p: -p.seconds))
            rank_zero_info(f"probes took {total:.1f} s of {run:.1f} s ({total / max(run, 1e-9):.0%}): {each}")

    def _affordable(self, trainer: pl.Trainer, epoch: int) -> bool:
        if self.budget is None:
            return True
        probes = _probes(trainer)
        trained = perf_counter() - probes[0]._began - sum(p.seconds for p in probes)
        affordable = broadcast(self.budget.allows(self.name, trained))
        if not affordable and not self._stretched:
            self._stretched = True
            every = self.budget.looks_every(self.name, trained / (epoch - self._first_epoch))
            rank_zero_info(
                f"{self.name} is too dear for its budget of {self.budget.share:.0%}: "
                f"it looks about every {every} epochs"
            )
        return affordable

    def _look_once(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, label: str) -> None:
        started, self._seen_at = perf_counter(), step
        failure = self._look(trainer, pl_module, step, label)
        self._failures = self._failures + 1 if failure else 0
        if failure:
            self._complain(failure)
        seconds = perf_counter() - started
        self.seconds += seconds
        if self.budget is not None:
            self.budget.charge(self.name, seconds)

    def _complain(self, failure: str) -> None:
        if self.on_error == "raise":
            raise RuntimeError(f"{self.name} failed: {failure}")
        if not self._warned:
            self._warned = True
            rank_zero_warn(f'{self.name} failed, training goes on: {failure}; on_error="raise" stops there')
        if self._failures == FAILURES:
            rank_zero_warn(f"{self.name} failed {FAILURES} times in a row and looks no more")

    def _is_first(self, trainer: pl.Trainer) -> bool:
        return _probes(trainer)[0] is self


def _probes(trainer: pl.Trainer) -> list[ScheduledCallback]:
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return [callback for callback in callbacks if isinstance(callback, ScheduledCallback)]
