"""Trains and probes in two processes, in one way after another."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import distributed

sys.path.insert(0, str(Path(__file__).parents[1]))
import somebody
from every_probe import every_probe

from fulgurite.callbacks.framework import cost, observation, probe, session, short_run
from fulgurite.callbacks.framework.artifacts import Scalar
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.probe_callback import ProbeCallback

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


class FailsOnTheSecond(ProbeCallback):
    """Fails on the second process only; or brings something there that cannot travel."""

    def __init__(self, how: str, **schedule):
        super().__init__(**schedule)
        self.how = how

    def subjects(self, network, sample) -> Sequence[str]:
        return ["first", "second"]

    def observe(self, network, sample, subjects):
        if "second" not in subjects:
            return {}
        if self.how == "unpicklable":
            return {"second": lambda: 0}
        raise KeyError("on the second")


class RefusesOnTheSecond(ProbeCallback):
    """Finds something wrong with what was asked for on the second process only."""

    def check(self, network, sample):
        if distributed.get_rank() == 1:
            raise ValueError("no such thing here")

    def subjects(self, network, sample) -> Sequence[str]:
        return ["first", "second"]

    def observe(self, network, sample, subjects):
        return {subject: Scalar(1.0) for subject in subjects}


NOW = [0.0]  # simulated seconds


def pass_time(seconds: float) -> None:
    NOW[0] += seconds


class Takes(ProbeCallback):
    """Takes some time, and more in the second process."""

    fewer = "subjects"

    def subjects(self, network, sample) -> Sequence[str]:
        return [f"s{place}" for place in range(8)]

    def observe(self, network, sample, subjects):
        pass_time(0.002 * len(subjects) * (1 + 5 * distributed.get_rank()))
        return {subject: Scalar(1.0) for subject in subjects}


class SlowStep(somebody.Theirs):
    """A step of training takes far longer than its passes."""

    def forward(self, images):
        pass_time(1e-4 * len(images))
        return super().forward(images)

    def training_step(self, batch, number):
        pass_time(0.5)
        return super().training_step(batch, number)


class Remembers(ProbeCallback):
    """Keeps the step of each look by subject; subjects change places from look to look."""

    def subjects(self, network, sample) -> Sequence[str]:
        return ["first", "second", "third"][:: (-1) ** self.look.number]

    def observe(self, network, sample, subjects):
        assert self.memory.first == (
            {} if self.look.first else dict.fromkeys(["first", "second", "third"], 0)
        )
        assert len(set(self.memory.last.values())) == (0 if self.look.first else 1)
        for subject in subjects:
            self.memory.keep(subject, self.look.step)
        return {subject: Scalar(self.memory.last.get(subject, -1)) for subject in subjects}


def probes(how: str) -> list[ProbeCallback]:
    if how in ("raise", "warn", "unpicklable"):
        return [FailsOnTheSecond(how, on_error="raise" if how == "raise" else "warn", **SCALE)]
    if how == "none":
        return []
    if how == "check":
        return [RefusesOnTheSecond(**SCALE)]
    if how == "short":
        budget = {"budget": Budget(0.1, floor=0.0), **SCALE}
        return [Takes(name=f"Takes{place}", on_error="raise", **budget) for place in range(3)]
    if how == "memory":
        return [Remembers(on_error="raise", **SCALE)]
    found = every_probe()
    for own in found:
        if hasattr(own, "precise"):
            own.precise = True
    return found


def train(folder: Path, how: str) -> None:
    torch.manual_seed(0)
    if how == "short":
        for module in (cost, observation, probe, session, short_run):
            module.perf_counter = lambda: NOW[0]
    model = SlowStep() if how == "short" else somebody.Theirs()
    trainer = somebody.quiet(folder, *probes(how), strategy="ddp", devices=2)
    trainer.fit(model, somebody.loader(shuffle=True), somebody.loader(300))
    trainer.save_checkpoint(folder / "kept.ckpt")
    if trainer.is_global_zero:
        torch.save(model.state_dict(), folder / "weights.pt")
    trainer.strategy.barrier()
    if trainer.is_global_zero:  # messages until here are about this training
        print(f"{how} came to the end", file=sys.stderr, flush=True)
    trainer.strategy.barrier()


def again(folder: Path, checkpoint: Path) -> None:
    """Look at trained weights in one process."""
    trainer = somebody.quiet(folder, *probes("all"), logger=TensorBoardLogger(folder, name="", version=""))
    trainer.validate(somebody.Theirs(), somebody.loader(300), ckpt_path=checkpoint, verbose=False)


if __name__ == "__main__":
    for way in sys.argv[2:]:
        train(Path(sys.argv[1]) / way, way)
