"""Probe: the interface of a probe: methods to write, and state to read during a look."""

import inspect
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from fulgurite.callbacks.framework.argument_checks import check_arguments
from fulgurite.callbacks.framework.artifacts import Artifact, Picture
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.contract import Needs
from fulgurite.callbacks.framework.film import Film
from fulgurite.callbacks.framework.lazy_images import spread
from fulgurite.callbacks.framework.look import FINISHED
from fulgurite.callbacks.framework.memory import Memory, upgraded
from fulgurite.callbacks.framework.reference import Reference
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.tasks import CLASSES, check_task
from fulgurite.probes.composites import Composite, channels_of
from fulgurite.probes.nearest_names import nearest
from fulgurite.probes.style import ThemeName, theme_of
from fulgurite.probes.tasks import LogitsOf, Task


class Probe(pl.Callback, ABC):
    """A probe without its schedule: see `ProbeCallback`, which adds one."""

    needs: Needs = "logits"
    tasks: Sequence[Task] = CLASSES
    logs_numbers = True
    """Whether it logs scalars, which have their own chart."""
    fewer: Literal["subjects", "images"] | None = None
    """What it looks at fewer of, where a short run cannot afford all."""
    subject_name = "images"
    """What its subjects are, in the plural, as the log and titles say it."""
    least: float = 1.0
    """How many subjects or images it looks at, at least; less than one is a part of the steps of one."""
    expensive = False
    """Whether measuring its cost takes long, so that others are measured first."""

    def __init__(
        self,
        *,
        every: int = 1,
        images: int | None = 16,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        task: Task | None = None,
        label: str | int | None = None,
        composite: Composite | None = None,
        budget: Budget | float | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        name: str | None = None,
        seed: int = 0,
        pictures: str | Path | None = None,
        theme: ThemeName | None = None,
        **unknown: Any,
    ):
        super().__init__()
        for knob in unknown:
            raise TypeError(
                f"{type(self).__name__} has no argument {knob!r}; {nearest(knob, _arguments(self))}"
            )
        check_arguments(every=every, images=images, classes=classes, label=label, name=name)
        if on_error not in ("warn", "raise"):
            raise ValueError(f'on_error={on_error!r}; wanted "warn" or "raise"')
        for what, values in {"mean": mean, "std": std}.items():
            if values is not None and not isinstance(values, Sequence):
                raise ValueError(f"{what}={values}; wanted a number for each channel, such as ({values},)")
        if std is not None and min(std) <= 0:
            raise ValueError(f"std={tuple(std)}; wanted positive numbers, one for each channel")
        self.every, self.on_error, self.name = every, on_error, name or type(self).__name__
        self.images, self.mean, self.std, self.classes = images, mean, std, classes
        if budget is not None and not isinstance(budget, Budget):
            if isinstance(budget, bool) or not isinstance(budget, int | float):
                raise ValueError(f"budget={budget!r}; wanted a share of the training time, 0.1 for a tenth")
            budget = Budget(budget)
        self.budget = budget
        self.seed, self.pictures = seed, None if pictures is None else Path(pictures)
        if theme is not None:
            theme_of(theme)
        self.theme: ThemeName | None = theme
        check_task(task)
        self.task: Task | None = task
        self.label, self.composite = label, channels_of(composite)
        self.logits_of: LogitsOf | None = None
        self.film = Film()
        self.memory, self.look, self.is_set_up = Memory(self.film), FINISHED, False
        self.reference: Reference | None = None
        self.sample: Sample | None = None
        self.training_images: int = 0
        self.training_sample: Sample | None = None
        self.seconds, self.waits, self.left_out = 0.0, False, False
        self.tried, self.limited_to = 1.0, ""
        self._all_images: tuple[Sample | None, Sample | None] | None = None
        self._stays_out = ""

    # what a probe is

    def check(self, network: nn.Module, sample: Sample) -> None:
        """Check the configuration against the network and the sample; called once, before training; must be
        cheap.

        Raises:
            ValueError: it cannot; training does not start.
        """
        return

    @abstractmethod
    def subjects(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """What to look at, shared by processes."""

    def chosen(self, network: nn.Module, sample: Sample) -> Sequence[str]:
        """The subjects that it looks at: all, or as many as a short run can afford, evenly spread.

        Of a finished network, no training waits for them: all.
        """
        subjects, most = self.subjects(network, sample), self.memory.most
        if not self.look.label or most is None or self.fewer != "subjects":
            return subjects
        return [subjects[place] for place in spread(len(subjects), max(1, int(most)))]

    @property
    def part(self) -> float:
        """The part of its steps that it takes, where it can take fewer: what a short run can afford."""
        most = self.memory.most
        return min(self.tried, 1.0 if most is None or not self.look.label else most)

    def begin(self) -> None:
        """Forget what limited it in an earlier training."""
        self.seconds, self.waits, self.left_out, self.limited_to = 0.0, False, False, ""
        self._all_images = None

    def look_at_most(self, most: float | None, count: int) -> None:
        """Look at this many subjects or images of `count`, less than one for fewer steps; all with None."""
        if self._all_images is not None:
            self.sample, self.training_sample = self._all_images
        self._all_images = self.sample, self.training_sample
        self.memory.most, self.limited_to = most, ""
        if most is not None:
            steps = "" if most >= 1 else f" ({most:.0%} of the usual steps)"
            self.limited_to = f"{max(1, int(most))} of {count} {self.subject_name}{steps}"
        self.shorten_sample()

    def shorten_sample(self) -> None:
        """Take as many images as a short run can afford, evenly spread, where it can look at fewer."""
        if self.fewer == "images" and self.memory.most is not None:
            self.sample, self.training_sample = self.fewer_images(int(self.memory.most))

    def fewer_images(self, count: int) -> tuple[Sample | None, Sample | None]:
        """As many images of its sample, and the same share of its training images."""
        sample, training = self.sample, self.training_sample
        if sample is not None and training is not None:
            training = training.evenly(-(-len(training) * count // len(sample)))
        return None if sample is None else sample.evenly(count), training

    def seconds_for(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> float:
        """About how long a look at these subjects takes; here, by looking once."""
        started = perf_counter()
        self.compose(self.observe(network, sample, subjects), sample)
        return perf_counter() - started

    @abstractmethod
    def observe(self, network: nn.Module, sample: Sample, subjects: Sequence[str]) -> Mapping[str, Any]:
        """One batched look at this process's share of the subjects.

        The network is in eval mode, its parameters frozen, gradients on; whatever is done to it is undone.
        Keys are subjects, or begin with a subject and a slash; values are artifacts, or what `compose` makes
        into some.
        """

    def note(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What to keep of the training, at each look, before the network is frozen."""
        return

    def compose(self, observations: Mapping[str, Any], sample: Sample) -> Mapping[str, Artifact]:
        """The artifacts to log, from the observations in the order of the subjects; runs on the main process
        alone.

        Observed tensors are on the CPU.
        """
        return observations

    def frames(self, observations: Mapping[str, Any], composed: Mapping[str, Artifact]) -> Mapping[str, Any]:
        """What the film keeps of a look: pictures by the name of their row; observed, or composed ones."""
        observed = {key: item for key, item in observations.items() if isinstance(item, Picture)}
        return observed or composed

    def seed_of(self, subject: str) -> int:
        """A seed for this subject only: its picture must not depend on other probes or subjects."""
        return zlib.crc32(f"{self.seed} {self.name} {subject}".encode())

    def tag(self, key: str) -> str:
        """What an artifact is logged under."""
        return f"{self.name}/{key}" if key else self.name

    def stay_out(self, why: str) -> Sequence[str]:
        """No subjects, and one line that says why; with `on_error="raise"` it is an error.

        Raises:
            ValueError: with `on_error="raise"`.
        """
        if self.on_error == "raise":
            raise ValueError(why)
        if self._stays_out != why:
            self._stays_out = why
            rank_zero_info(f"{self.name} stays out: {why}")
        return []

    def title(self, key: str) -> str:
        """Of a logged picture: the probe, what the key says, and when it looked."""
        when = f", epoch {self.look.epoch}" if self.look.epoch else ""
        part = f", {self.limited_to}" if self.limited_to and self.look.label else ""
        return self.tag(key).replace("/", ": ") + (", before training" if self.look.first else when) + part

    # what a checkpoint holds

    @property
    def state_key(self) -> str:
        """Two probes of a class keep their states apart by their names.

        Before `setup`, which reports two of one name in our words, no two are alike: Lightning compares them
        when a Trainer is made, and its message does not name `name=`.
        """
        apart = {} if self.is_set_up else {"not set up": id(self)}
        return self._generate_state_key(name=self.name, **apart)

    def state_dict(self) -> dict:
        """Its memory, the number of its looks, and how many in a row have failed."""
        reference = {} if self.reference is None else {"reference": self.reference.state_dict()}
        return {**self.memory.state_dict(), **reference}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore the state; a probe that was switched off stays so."""
        state = upgraded(state_dict)
        self.memory.load_state_dict(state)
        if self.reference is not None:
            self.reference.load_state_dict(state.get("reference", {}))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, every={self.every}, images={self.images})"


def _arguments(probe: Probe) -> list[str]:
    """The names that a probe's constructor takes, its own first."""
    of_all = [inspect.signature(kind.__init__).parameters.values() for kind in type(probe).__mro__]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [own.name for row in of_all for own in row if own.kind not in variadic and own.name != "self"]
    return list(dict.fromkeys(names))
