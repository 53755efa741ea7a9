"""ProbeCallback: the base class of all probes that run during training."""

import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import nn

from fulgurite.callbacks.boards.tensorboard import Artifact, Picture, Scalar, board_of, pin
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.contract import Needs, named
from fulgurite.callbacks.framework.distributed import merge_in_order, shard
from fulgurite.callbacks.framework.exchange import exchange
from fulgurite.callbacks.framework.film import Film
from fulgurite.callbacks.framework.sample import Sample, classes_of, fetch, loader_of
from fulgurite.callbacks.framework.schedule import ScheduledCallback
from fulgurite.probes.borrow import borrowed, device_of


class ProbeCallback(ScheduledCallback):
    """Looks at a network before training and after every so-manieth epoch; pins what it sees to TensorBoard.

    A new probe writes two methods, `subjects` and `observe`, and may write a third, `compose`. It works with
    any LightningModule whose `forward` maps images to logits; a module may have a property `network_to_probe`
    that names the part to look at instead. A probe that needs no logits says by `needs` what it reads: the
    outputs of "layers", or "weights" alone. Training goes on as if nobody had looked, bit for bit. In
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

    needs: Needs = "logits"
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
        super().__init__(every=every, budget=budget, on_error=on_error, name=name)
        if images is not None and images < 1:
            raise ValueError(f"images={images}; wanted at least 1, or None for all")
        for what, values in {"mean": mean, "std": std}.items():
            if values is not None and not isinstance(values, Sequence):
                raise ValueError(f"{what}={values}; wanted a number for each channel, such as ({values},)")
        if std is not None and min(std) <= 0:
            raise ValueError(f"std={tuple(std)}; wanted positive numbers, one for each channel")
        self.images, self.mean, self.std, self.classes = images, mean, std, classes
        self.seed, self.pictures, self.film = seed, pictures, Film()

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

    def note(self, trainer: pl.Trainer, pl_module: pl.LightningModule, label: str) -> None:
        """What to keep of the training, at each look before the network is borrowed and frozen.

        `label` is "start", the number of the epoch, or empty for a finished network.
        """
        return

    def compose(self, seen: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """What to pin of all that was observed, in the order of the subjects; only the first process asks."""
        return seen

    def seed_of(self, subject: str) -> int:
        """A seed for this subject alone: its picture must not depend on who else looks, or at what."""
        return zlib.crc32(f"{self.seed} {self.name} {subject}".encode())

    @property
    def state_key(self) -> str:
        """Two probes of a class keep their states apart by their names."""
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict:
        """The film so far, and how many looks in a row have failed."""
        return {"film": self.film.state_dict(), "failures": self._failures}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on with the film; a probe that looked no more does not begin again."""
        self.film.load_state_dict(state_dict["film"])
        self._failures = state_dict.get("failures", 0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, every={self.every}, images={self.images})"

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
            self._sample = named(self._sample, borrowed_network, self.classes, self.needs)
            self.subjects(borrowed_network, self._sample)

    def _look(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int, label: str) -> str | None:
        started = perf_counter()

        def observe() -> Mapping[str, Any]:
            self.note(trainer, pl_module, label)
            with self._borrowed(pl_module) as network:
                mine = shard(self.subjects(network, self._sample))
                return self.observe(network, self._sample, mine) if mine else {}

        def conclude(everyones: Sequence[bytes]) -> None:
            with self._borrowed(pl_module) as network:
                seen = merge_in_order(everyones, self.subjects(network, self._sample))
                composed = self.compose(seen, self._sample)
            if label:
                pictured = {key: item for key, item in seen.items() if isinstance(item, Picture)}
                self.film.add(label, pictured or composed)
            if (board := board_of(trainer, self.pictures)) is not None:
                pin(board, {self._tag(key): item for key, item in composed.items()}, step)
                pin(board, {f"seconds/{self.name}": Scalar(perf_counter() - started)}, step)

        return exchange(observe, conclude)

    @contextmanager
    def _borrowed(self, pl_module: pl.LightningModule) -> Iterator[nn.Module]:
        with borrowed(_network(pl_module), mean=self.mean, std=self.std) as network:
            torch.manual_seed(self.seed)
            yield network

    def _pin_film(self, trainer: pl.Trainer) -> None:
        board = board_of(trainer, self.pictures)
        if board is not None and (strip := self.film.strip()) is not None:
            pin(board, {f"{self.name}/film": strip}, trainer.global_step)

    def _tag(self, key: str) -> str:
        return f"{self.name}/{key}" if key else self.name


def _network(pl_module: pl.LightningModule) -> nn.Module:
    return getattr(pl_module, "network_to_probe", pl_module)
