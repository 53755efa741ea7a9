"""A probe on a schedule: when, on what, shared by processes, within a budget, undisturbing, and to where."""

import pickle
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from fulgurite.callbacks.board import Artifact, Picture, Scalar, board_of, pin, require_board
from fulgurite.callbacks.budget import Budget
from fulgurite.callbacks.film import Film
from fulgurite.callbacks.ranks import gathered, in_order, share, told
from fulgurite.callbacks.sample import Sample, classes_of, fetch, loader_of, named
from fulgurite.probes.borrow import borrowed, device_of

FAILURES = 3  # in a row, after which a probe looks no more


class ProbeCallback(pl.Callback, ABC):
    """Looks at a network before training and after every so-manieth epoch; pins what it sees to TensorBoard.

    A new probe writes two methods, `subjects` and `observe`, and may write a third, `compose`. It works with
    any LightningModule whose `forward` maps images to logits; a module may have a property `network_to_probe`
    that names the part to look at instead. Training goes on as if nobody had looked, bit for bit. In
    `Trainer.validate` it looks once, at the step of the checkpoint.

    Args:
        every: epochs from one look to the next; there is one at the end besides, however training ends.
        images: how many validation images to look at, spread evenly over the set (training images, if there
            are no others); None for all.
        mean: if the data are normalised outside the network, by which mean per channel; pictures, gradients
            and so on are then in [0, 1] all the same.
        std: and by which standard deviation.
        classes: the names of the classes, if neither data set, data module nor model has them as `classes`.
        budget: how much of the training time looking may take, 0.1 for a tenth; a `Budget` can be shared by
            several probes. Without one, every look takes place; with one, the first and the last still do.
        on_error: what to do when a look fails: "warn" once and train on, or "raise" on every process.
        name: what its tags begin with; the class's name without one. Two of a class need two names.
        seed: of whatever it draws.
        pictures: a folder to write every picture to as PNG besides.
    """

    _sample: Sample

    def __init__(
        self,
        *,
        every: int = 1,
        images: int | None = 16,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        budget: Budget | float | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        name: str | None = None,
        seed: int = 0,
        pictures: Path | None = None,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"every={every}; wanted epochs from one look to the next, at least 1")
        if images is not None and images < 1:
            raise ValueError(f"images={images}; wanted at least 1, or None for all")
        if on_error not in ("warn", "raise"):
            raise ValueError(f'on_error={on_error!r}; wanted "warn" or "raise"')
        for what, values in {"mean": mean, "std": std}.items():
            if values is not None and not isinstance(values, Sequence):
                raise ValueError(f"{what}={values}; wanted a number for each channel, such as ({values},)")
        if std is not None and min(std) <= 0:
            raise ValueError(f"std={tuple(std)}; wanted positive numbers, one for each channel")
        self.every, self.images, self.mean, self.std, self.classes = every, images, mean, std, classes
        self.budget = Budget(budget) if isinstance(budget, int | float) else budget
        self.on_error, self.name, self.seed, self.pictures = (
            on_error,
            name or type(self).__name__,
            seed,
            pictures,
        )
        self.film = Film()
        self.seconds = 0.0
        self._failures, self._warned, self._stretched = 0, False, False
        self._began, self._first_epoch, self._checkpoint_step, self._seen_at = 0.0, 0, 0, -1

    @abstractmethod
    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """What to look at, shared by processes; a `ValueError` here is raised before training starts."""

    @abstractmethod
    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Any]:
        """One batched look at this process's share of the subjects.

        The network is in eval mode, its parameters frozen, gradients on; whatever is done to it is undone.
        Keys are subjects, or begin with a subject and a slash; values are artifacts, or what `compose` makes
        into some.
        """

    def compose(self, seen: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """What to pin of all that was observed, in the order of the subjects; only the first process asks."""
        return seen

    def seed_of(self, subject: str) -> int:
        """A seed for this subject alone: its picture must not depend on who else looks, or at what."""
        return zlib.crc32(f"{self.seed} {self.name} {subject}".encode())

    # when

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
            self._look(trainer, pl_module, 0, "start")
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
            self._look(trainer, pl_module, trainer.global_step, str(epoch))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at a finished network."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._prepare(trainer, pl_module)
            self._look(trainer, pl_module, self._checkpoint_step or trainer.global_step, "")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look, if training ended between two looks, and pin the film of the run."""
        if self._seen_at != trainer.global_step and self._failures < FAILURES:
            self._look(trainer, pl_module, trainer.global_step, str(trainer.current_epoch))
        self._pin_film(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Pin what there is of the film."""
        if isinstance(exception, KeyboardInterrupt):
            self._pin_film(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what looking took."""
        if self._is_first(trainer) and self._began:
            probes = _probes(trainer)
            total, run = sum(p.seconds for p in probes), perf_counter() - self._began
            each = ", ".join(f"{p.name} {p.seconds:.1f} s" for p in sorted(probes, key=lambda p: -p.seconds))
            rank_zero_info(f"probes took {total:.1f} s of {run:.1f} s ({total / max(run, 1e-9):.0%}): {each}")

    # what it keeps

    @property
    def state_key(self) -> str:
        """Two probes of a class keep their states apart by their names."""
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict:
        """The film so far."""
        return {"film": self.film.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on with the film."""
        self.film.load_state_dict(state_dict["film"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, every={self.every}, images={self.images})"

    # how

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fetch the sample, and ask once for the subjects: a wrong name is told before training starts."""
        loader = loader_of(trainer)
        network = _network(pl_module)
        self._sample = fetch(
            loader,
            self.images,
            classes=self.classes or classes_of(trainer, loader),
            device=device_of(pl_module),
            mean=self.mean,
            std=self.std,
        )
        with borrowed(network, mean=self.mean, std=self.std) as borrowed_network:
            self._sample = named(self._sample, borrowed_network, self.classes)
            self.subjects(borrowed_network, self._sample)

    def _affordable(self, trainer: pl.Trainer, epoch: int) -> bool:
        if self.budget is None:
            return True
        probes = _probes(trainer)
        trained = perf_counter() - probes[0]._began - sum(p.seconds for p in probes)
        affordable = told(self.budget.allows(self.name, trained))
        if not affordable and not self._stretched:
            self._stretched = True
            every = self.budget.looks_every(self.name, trained / (epoch - self._first_epoch))
            rank_zero_info(
                f"{self.name} is too dear for its budget of {self.budget.share:.0%}: "
                f"it looks about every {every} epochs"
            )
        return affordable

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, label: str) -> None:
        started, self._seen_at = perf_counter(), step
        mine = self._observed(_network(pl_module))
        # every process reaches both exchanges, whatever went wrong in its look
        everyones = gathered(mine)
        failure = told(self._pinned(trainer, everyones, step, label) if trainer.is_global_zero else None)
        self._failures = self._failures + 1 if failure else 0
        if failure:
            self._complain(failure)
        seconds = perf_counter() - started
        self.seconds += seconds
        if self.budget is not None:
            self.budget.charge(self.name, seconds)
        if (board := board_of(trainer)) is not None:
            pin(board, {f"seconds/{self.name}": Scalar(seconds)}, step)

    def _observed(self, network: nn.Module) -> bytes | str:
        """What this process saw, packed; or what went wrong, in words, which always travel."""
        try:
            with borrowed(network, mean=self.mean, std=self.std) as borrowed_network:
                torch.manual_seed(self.seed)
                mine = share(self.subjects(borrowed_network, self._sample))
                return pickle.dumps(dict(self.observe(borrowed_network, self._sample, mine)) if mine else {})
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def _pinned(
        self, trainer: pl.Trainer, everyones: Sequence[bytes | str], step: int, label: str
    ) -> str | None:
        """Pin what all processes saw; what went wrong, if anything did."""
        packed = []
        for rank, mine in enumerate(everyones):
            if isinstance(mine, str):
                return mine + (f" (on process {rank})" if len(everyones) > 1 else "")
            packed.append(mine)
        try:
            network = _network(trainer.lightning_module)
            with borrowed(network, mean=self.mean, std=self.std) as borrowed_network:
                torch.manual_seed(self.seed)
                seen = in_order(packed, self.subjects(borrowed_network, self._sample))
                composed = self.compose(seen, self._sample)
            if label:
                pictured = {key: item for key, item in seen.items() if isinstance(item, Picture)}
                self.film.add(label, pictured or composed)
            if (board := board_of(trainer, self.pictures)) is not None:
                pin(board, {self._tag(key): item for key, item in composed.items()}, step)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _complain(self, failure: str) -> None:
        if self.on_error == "raise":
            raise RuntimeError(f"{self.name} failed: {failure}")
        if not self._warned:
            self._warned = True
            rank_zero_warn(f'{self.name} failed, training goes on: {failure}; on_error="raise" stops there')
        if self._failures == FAILURES:
            rank_zero_warn(f"{self.name} failed {FAILURES} times in a row and looks no more")

    def _pin_film(self, trainer: pl.Trainer) -> None:
        if (board := board_of(trainer, self.pictures)) is not None and (
            strip := self.film.strip()
        ) is not None:
            pin(board, {f"{self.name}/film": strip}, trainer.global_step)

    def _tag(self, key: str) -> str:
        return f"{self.name}/{key}" if key else self.name

    def _is_first(self, trainer: pl.Trainer) -> bool:
        return _probes(trainer)[0] is self


def _probes(trainer: pl.Trainer) -> list[ProbeCallback]:
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return [callback for callback in callbacks if isinstance(callback, ProbeCallback)]


def _network(pl_module: pl.LightningModule) -> nn.Module:
    return getattr(pl_module, "network_to_probe", pl_module)
