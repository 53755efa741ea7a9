"""Session: the state that the probes of one Trainer share: images, boards, budget, order of looks."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import perf_counter
from weakref import WeakKeyDictionary

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from fulgurite.callbacks.boards.board import Board, log_all
from fulgurite.callbacks.boards.choice import boards_of
from fulgurite.callbacks.boards.folder import LatestPictures
from fulgurite.callbacks.framework.artifacts import Text
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.cost_words import at_fewer, cost_in_words, what_it_took
from fulgurite.callbacks.framework.exchange import Failure, exchange, failure_of, outcomes
from fulgurite.callbacks.framework.look import Look
from fulgurite.callbacks.framework.observation import log_film, look, prepare
from fulgurite.callbacks.framework.probe import Probe
from fulgurite.callbacks.framework.short_run import ShortRun
from fulgurite.callbacks.framework.sources import Sources

FAILURES = 3  # failures in a row, after which a probe is switched off
_SESSIONS: "WeakKeyDictionary[pl.Trainer, Session]" = WeakKeyDictionary()


def session_of(trainer: pl.Trainer) -> "Session":
    """The session of a trainer, which lasts as long as the trainer."""
    return _SESSIONS.setdefault(trainer, Session())


def probes_of(trainer: pl.Trainer) -> list[Probe]:
    """The probes among a trainer's callbacks, in their order."""
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return [callback for callback in callbacks if isinstance(callback, Probe)]


class Session:
    """Runs all probes of a trainer at the hooks of the first of them, so that they share images and passes.

    Of the probes that are due, the one that has not looked for longest is first.
    """

    def __init__(self) -> None:
        self.budget: Budget | None = None
        self.short: ShortRun | None = None
        self.checkpoint_step = self.checkpoint_epochs = 0
        self._sources = Sources()
        self._boards: tuple[tuple[int, ...], list[Board]] | None = None
        self._last_step: dict[str, int] = {}
        self._ready: set[str] = set()
        self._warned: set[str] = set()
        self._began = 0.0

    # the hooks

    def check_trainer(self, probe: Probe, trainer: pl.Trainer) -> None:
        """Check that the probes of a trainer can look at its network.

        Raises:
            ValueError: the network is split among processes, two probes have one name, or two budgets.
        """
        probes = probes_of(trainer)
        names = [other.name for other in probes]
        if names.count(probe.name) > 1:
            kind = type(probe).__name__
            raise ValueError(
                f"{names.count(probe.name)} probes are called {probe.name!r}; give each its own name=, "
                f'such as {kind}(..., name="{probe.name} 2")'
            )
        limits = dict.fromkeys(
            (own.share, own.floor) for other in probes if (own := other.budget) is not None
        )
        if len(limits) > 1:
            shares = " and ".join(f"{share:g} with a floor of {floor:g} s" for share, floor in limits)
            raise ValueError(
                f"the probes of a Trainer share one budget, but have {shares}; give them the same"
            )
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise ValueError(
                f"probes look at a whole network, but {type(trainer.strategy).__name__} splits it among "
                'processes; train with strategy="ddp" or on one device'
            )

    def start(self, probe: Probe, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prepare all probes, and look at the untrained network."""
        if not (probes := _all_with(probe, trainer)):
            return
        self._began = perf_counter()
        self.checkpoint_step = self.checkpoint_epochs = 0
        # a resumed run has been looked at
        self._last_step = dict.fromkeys((one.name for one in probes), trainer.global_step or -1)
        limits = [one.budget for one in probes if one.budget is not None]
        self.budget = Budget(limits[0].share, limits[0].floor) if limits else None
        self._prepare(probes, trainer, pl_module)
        self.short = None
        if self.budget is not None:
            self.short = ShortRun(self.budget, probes, self._able(probes), trainer.global_step)
        for one in probes:
            if trainer.global_step == 0 or one.budget is None:
                one.memory.most = None  # of an earlier training
        if trainer.global_step == 0:
            self._look_first(probes, trainer, pl_module)
        elif self.short is not None:
            self.short.begin(0.0, trainer, pl_module)
            if fewer := at_fewer(probes):
                rank_zero_info(f"probes run, as the training is short, {fewer}")
        for board in self._all_boards(trainer):
            rank_zero_info(board.where())

    def end_epoch(self, probe: Probe, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let those probes look that are due and within the budget."""
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        last = epoch == trainer.max_epochs or 0 <= trainer.max_steps <= step
        probes = [one for one in _all_with(probe, trainer) if last or epoch % one.every == 0]
        if probes and self.short is not None:
            self.short.adjust(trainer, pl_module, epoch, last=last)
        for one in self._in_order(probes, last=last):
            this_look = Look(step, epoch, str(epoch), one.memory.looks + 1, first=False, last=last)
            self._look(one, trainer, pl_module, this_look)

    def look_at_finished(self, probe: Probe, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at a finished network once, where it is validated."""
        if trainer.state.fn != TrainerFn.VALIDATING or not (probes := _all_with(probe, trainer)):
            return
        self._prepare(probes, trainer, pl_module)
        step = self.checkpoint_step or trainer.global_step
        epoch = self.checkpoint_epochs or trainer.current_epoch
        for one in self._able(probes):
            this_look = Look(step, epoch, "", one.memory.looks + 1, first=False, last=True)
            self._look(one, trainer, pl_module, this_look)

    def end(self, probe: Probe, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look, if training ended between two looks; and log the films."""
        step, epoch, probes = trainer.global_step, trainer.current_epoch, _all_with(probe, trainer)
        due = [one for one in probes if self._last_step[one.name] != step and not one.left_out]
        if due and self.short is not None:
            self.short.adjust(trainer, pl_module, epoch, last=True)
        for one in self._in_order(due, last=True):
            this_look = Look(step, epoch, str(epoch), one.memory.looks + 1, first=False, last=True)
            self._look(one, trainer, pl_module, this_look)
        for one in probes:
            failure, _ = exchange(dict, lambda _, one=one: self._pin_film(one, trainer))
            if failure:
                self._complain(one, failure, trainer)
        self._sources.clear()

    def interrupt(self, probe: Probe, trainer: pl.Trainer) -> None:
        """Log the films so far, without the other processes."""
        for one in _all_with(probe, trainer):
            try:
                self._pin_film(one, trainer)
            except Exception as error:
                rank_zero_warn(f"{one.name} could not write its film: {failure_of(error).words}")

    def say_what_it_took(self, probe: Probe, trainer: pl.Trainer) -> None:
        """Report the share of the time that the probes took."""
        if not (probes := _all_with(probe, trainer)) or not self._began:
            return
        other = 0.0 if self.short is None else self.short.seconds
        rank_zero_info(what_it_took(probes, other, perf_counter() - self._began))

    # the total

    def _look_first(
        self, probes: Sequence[Probe], trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Let all look at the untrained network; last those whose subjects depend on the others' time."""
        when, able = Look(0, 0, "start", 0, first=True, last=False), self._able(probes)
        flexible = [] if self.short is None else self.short.flexible
        prepared = _seconds(able)
        for one in able:
            if one not in flexible:
                self._look(one, trainer, pl_module, when)
        spent = 2 * _seconds(able) - prepared  # with the look after training, which is as long
        if self.short is not None:
            self.short.begin(spent, trainer, pl_module)
        for one in flexible:
            if not one.waits:
                self._look(one, trainer, pl_module, when)
                if self.short is not None:
                    self.short.expect_last(one)
        training = None if self.short is None else self.short.training
        rank_zero_info(cost_in_words(probes, self.budget, training))

    def _prepare(self, probes: Sequence[Probe], trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sources.clear()
        self._sources.max_images = (
            None if any(one.images is None for one in probes) else max(one.images or 1 for one in probes)
        )
        self._ready = set()
        for one in probes:
            one.begin()
            self.prepare(one, trainer, pl_module)

    def prepare(self, probe: Probe, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fetch the sample of a probe, and check its configuration.

        Raises:
            ValueError: it cannot be, on any process: training does not start.
        """
        started, errors = perf_counter(), []

        def act() -> None:
            try:
                prepare(probe, self._sources, trainer, pl_module)
            except Exception as error:
                errors.append(error)
                raise

        failures = outcomes(act)
        probe.seconds += perf_counter() - started
        self._ready.add(probe.name)
        failed = [failure for failure in failures if failure is not None]
        if not failed:
            return
        if len(failed) == len(failures) and all(failure.of_value for failure in failed):
            raise errors[0]
        # an error of this machine, not of the configuration: the next look may succeed
        probe.memory.failures += 1
        if any(outcomes(lambda: _require_sample(probe))):
            self._ready.discard(probe.name)
        self._complain(probe, failed[0], trainer)

    def _able(self, probes: Sequence[Probe]) -> list[Probe]:
        return [one for one in probes if one.name in self._ready and one.memory.failures < FAILURES]

    def _look(self, probe: Probe, trainer: pl.Trainer, pl_module: pl.LightningModule, when: Look) -> None:
        started, self._last_step[probe.name], probe.look = perf_counter(), when.step, when
        failure = look(probe, self._boards_of(probe, trainer), trainer, pl_module)
        if not when.first:
            probe.memory.looks = when.number
        probe.memory.failures = probe.memory.failures + 1 if failure else 0
        if failure:
            self._complain(probe, failure, trainer)
        seconds = perf_counter() - started
        probe.seconds += seconds
        if self.budget is not None and probe.budget is not None:
            self.budget.charge(probe.name, seconds)

    def _complain(self, probe: Probe, failure: Failure, trainer: pl.Trainer) -> None:
        if self._all_boards(trainer):
            with suppress(Exception):  # a board may be what failed
                artifacts = {f"failures/{probe.name}": Text(failure.trace)}
                log_all(self._all_boards(trainer), artifacts, probe.look.step)
        if probe.on_error == "raise":
            error = RuntimeError(f"{probe.name} failed: {failure.words}")
            error.add_note(failure.trace)
            raise error
        if probe.name not in self._warned:
            self._warned.add(probe.name)
            rank_zero_warn(
                f'{probe.name} failed, training goes on: {failure.words}; on_error="raise" stops there\n'
                f"{failure.trace}"
            )
        if probe.memory.failures == FAILURES:
            rank_zero_warn(f"{probe.name} failed {FAILURES} times in a row and is switched off")

    def _pin_film(self, probe: Probe, trainer: pl.Trainer) -> None:
        log_film(probe, self._boards_of(probe, trainer), trainer.global_step)

    # time and place

    def _in_order(self, probes: Sequence[Probe], *, last: bool) -> Iterator[Probe]:
        """Those within the budget, that which ran longest ago first; at the end, those that waited last."""
        able, short = sorted(self._able(probes), key=lambda one: self._last_step[one.name]), self.short
        for one in sorted(able, key=short.order) if last and short is not None else able:
            if one.budget is None or short is None or (short.runs_last if last else short.runs_between)(one):
                yield one

    def _boards_of(self, probe: Probe, trainer: pl.Trainer) -> list[Board]:
        boards = list(self._all_boards(trainer))
        if boards and probe.pictures is not None:
            boards.append(LatestPictures(probe.pictures))
        return boards

    def _all_boards(self, trainer: pl.Trainer) -> list[Board]:
        loggers = tuple(map(id, trainer.loggers))
        if self._boards is None or self._boards[0] != loggers:
            self._boards = loggers, boards_of(trainer)
        return self._boards[1]


def _all_with(probe: Probe, trainer: pl.Trainer) -> list[Probe]:
    """All probes of the trainer for the first of them, none for the others."""
    probes = probes_of(trainer)
    return probes if probes and probes[0] is probe else []


def _seconds(probes: Sequence[Probe]) -> float:
    """That those with a budget have taken so far."""
    return sum(one.seconds for one in probes if one.budget is not None)


def _require_sample(probe: Probe) -> None:
    if probe.sample is None:
        raise ValueError("no images")
