"""Two epochs on a budget: probes look at fewer classes or images, so that looks take a third of the run."""

import time
from pathlib import Path

import pytest
import somebody
import torch

from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.framework.artifacts import Scalar
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.metrics import Metrics

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}
SUBJECT, IMAGE = 0.05, 0.01


class Sleeps(ProbeCallback):
    can_look_at_fewer = True

    def subjects(self, network, sample):
        return [f"s{place:02d}" for place in range(20)]

    def observe(self, network, sample, subjects):
        time.sleep(SUBJECT * len(subjects))
        return {name: Scalar(1.0) for name in subjects}


class Slow(somebody.Theirs):
    """A pass forward takes a hundredth of a second for each image, a step of training three."""

    def forward(self, images):
        time.sleep(IMAGE * len(images))
        return super().forward(images)

    def training_step(self, batch, number):
        time.sleep(2 * IMAGE * len(batch[0]))
        return super().training_step(batch, number)


def trained(folder: Path, *probes: ProbeCallback, epochs: int) -> float:
    """The share of the time that the probes took."""
    trainer = somebody.quiet(folder, *probes, max_epochs=epochs)
    started = time.perf_counter()
    trainer.fit(Slow(), somebody.loader(), somebody.loader(9))
    return sum(probe.seconds for probe in probes) / (time.perf_counter() - started)


@pytest.mark.slow
def test_two_epochs_spend_at_most_a_third_of_the_time_on_looks(tmp_path: Path, caplog):
    probe = Sleeps(budget=Budget(0.1, floor=0.0), **SCALE)
    share = trained(tmp_path, probe, epochs=2)
    looked = {tag for tag in somebody.scalars(tmp_path) if tag.startswith("Sleeps/")}
    assert share <= 1 / 3, share
    assert 1 <= len(looked) < 12
    assert all(len(somebody.scalars(tmp_path)[tag]) == 2 for tag in looked)
    assert f"at fewer classes or images: Sleeps {len(looked)} of 20" in caplog.text
    assert caplog.text.count("probes: 1, whose first looks took") == 1
    assert "every 1 epochs" not in caplog.text


@pytest.mark.figures
def test_a_longer_run_looks_at_all(tmp_path: Path, caplog):
    probe = Sleeps(budget=Budget(0.1, floor=0.0), **SCALE)
    trained(tmp_path, probe, epochs=12)
    assert len([tag for tag in somebody.scalars(tmp_path) if tag.startswith("Sleeps/")]) == 20
    assert "fewer" not in caplog.text


@pytest.mark.slow
def test_without_a_budget_nothing_is_left_out(tmp_path: Path, caplog):
    trained(tmp_path, Sleeps(**SCALE), epochs=1)
    assert len([tag for tag in somebody.scalars(tmp_path) if tag.startswith("Sleeps/")]) == 20
    assert "no budget limits them" in caplog.text


@pytest.mark.slow
def test_class_images_are_of_fewer_classes_and_measuring_changes_no_training(tmp_path: Path, caplog):
    ends = []
    for probes in (
        [],
        [
            ClassImages(budget=Budget(0.1, floor=0.0), **SCALE),
            Metrics(budget=Budget(0.1, floor=0.0), **SCALE),
        ],
    ):
        torch.manual_seed(0)
        model = somebody.Theirs()
        trainer = somebody.quiet(tmp_path / str(len(probes)), *probes, max_epochs=2)
        trainer.fit(model, somebody.loader(), somebody.loader(9))
        ends.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    assert torch.equal(*ends)
    assert "ClassImages 1 of 3" in caplog.text


@pytest.mark.slow
def test_a_resumed_run_continues_with_the_same_number(tmp_path: Path):
    probe = Sleeps(budget=Budget(0.1, floor=0.0), **SCALE)
    trained(tmp_path, probe, epochs=2)
    again = Sleeps()
    again.load_state_dict(probe.state_dict())
    assert probe.sample is not None
    assert len(again.chosen(torch.nn.Identity(), probe.sample)) == 20  # of a finished network
    again.look = probe.look
    chosen = again.chosen(torch.nn.Identity(), probe.sample)
    assert chosen == probe.chosen(torch.nn.Identity(), probe.sample)
    assert len(chosen) < 20
    assert len({int(name[1:]) // 10 for name in chosen}) == min(2, len(chosen))  # spread evenly
