"""Short runs of the command that are cut off in an epoch, and whether two runs ended the same."""

from pathlib import Path

import pytest
import somebody

from fulgurite.cli.command import main
from fulgurite.models.classifier import Classifier

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
WORDS = ["fit", "digits", "--epochs", "3", "--size", "8", "--batch_size", "256", "--every", "0", *QUIET]
AGAIN = ["fit", "digits", "--resume", "run", *QUIET]


class PowerCutError(Exception):
    pass


def during(epoch: int, do):
    """A training step that does something at the second batch of an epoch."""
    step = Classifier.training_step

    def training_step(self, batch, number):
        if (self.current_epoch, number) == (epoch, 1):
            do()
        return step(self, batch, number)

    return training_step


def cut():
    raise PowerCutError


def interrupted(monkeypatch: pytest.MonkeyPatch, epoch: int, words=WORDS) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", during(epoch, cut))
        with pytest.raises(PowerCutError):
            main([*words, "--folder", "run"])
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


def assert_same(run: Path, other: Path) -> None:
    for which in ("last", "best"):
        one, two = somebody.checkpoint(run, which), somebody.checkpoint(other, which)
        assert [part for part in one if not somebody.same(one[part], two[part])] == [], which
    assert somebody.scalars(run) == somebody.scalars(other)
    assert (run / "test.json").read_text() == (other / "test.json").read_text()
    assert not list(run.rglob("*.tmp"))
