"""Networks and probes that take a stated time, on a simulated clock."""

from pathlib import Path

import pytest
import somebody
import torch

from fulgurite.callbacks.framework import cost, observation, session, short_run
from fulgurite.callbacks.framework import probe as probes_of_all
from fulgurite.callbacks.framework.artifacts import Scalar
from fulgurite.callbacks.framework.probe_callback import ProbeCallback

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}
SUBJECT, IMAGE = 0.05, 0.01


class Clock:
    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


def simulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clock that the framework of callbacks reads is this one."""
    for module in (cost, observation, probes_of_all, session, short_run):
        monkeypatch.setattr(module, "perf_counter", lambda: CLOCK.now)


class Takes(torch.autograd.Function):
    """Identity; a pass forward takes some seconds, and one back twice as many."""

    @staticmethod
    def forward(ctx, values, seconds):
        ctx.seconds = seconds
        CLOCK.sleep(seconds)
        return values.clone()

    @staticmethod
    def backward(ctx, *slopes):
        CLOCK.sleep(2 * ctx.seconds)
        return slopes[0], None


class Sleeps(ProbeCallback):
    fewer = "subjects"

    def subjects(self, network, sample):
        return [f"s{place:02d}" for place in range(20)]

    def observe(self, network, sample, subjects):
        CLOCK.sleep(SUBJECT * len(subjects))
        return {name: Scalar(1.0) for name in subjects}


class Whole(ProbeCallback):
    """One subject, which takes some seconds."""

    fewer = "subjects"

    def __init__(self, takes: float, **schedule):
        super().__init__(**schedule)
        self.takes = takes

    def subjects(self, network, sample):
        return ["all"]

    def observe(self, network, sample, subjects):
        CLOCK.sleep(self.takes)
        return {"all": Scalar(1.0)}


class Steps(Whole):
    """One subject, which can also take a part of its steps."""

    least = 0.25

    def observe(self, network, sample, subjects):
        CLOCK.sleep(self.takes * self.part)
        return {"all": Scalar(1.0)}


class Slow(somebody.Theirs):
    """A pass forward takes a hundredth of a second for each image, a step of training three."""

    def forward(self, images):
        return Takes.apply(super().forward(images), IMAGE * len(images))


class SlowStep(Slow):
    """A step of training that takes ten times as long as its passes."""

    def training_step(self, batch, number):
        CLOCK.sleep(9 * 3 * IMAGE * len(batch[0]))
        return super().training_step(batch, number)


def trained(folder: Path, *probes: ProbeCallback, epochs: int, model: somebody.Theirs | None = None) -> float:
    """The share of the time that the probes took."""
    trainer = somebody.quiet(folder, *probes, max_epochs=epochs)
    started = CLOCK.now
    trainer.fit(model or Slow(), somebody.loader(), somebody.loader(9))
    return sum(probe.seconds for probe in probes) / (CLOCK.now - started)
