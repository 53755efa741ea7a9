"""Two epochs on a budget: probes look at fewer classes or images, so that looks take a third of the run."""

import time
from pathlib import Path

import pytest
import somebody
import torch

from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.embeddings import Embeddings
from fulgurite.callbacks.framework.artifacts import Scalar
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.cost import Cost, affordable
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.metrics import Metrics
from fulgurite.recipes.recipe import standard_probes

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}
SUBJECT, IMAGE = 0.05, 0.01


class Sleeps(ProbeCallback):
    fewer = "subjects"

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
    assert f"they look at fewer classes or images: Sleeps {len(looked)} of 20" in caplog.text
    assert caplog.text.count("probes: 1, whose first looks took") == 1
    assert "every 1 epochs" not in caplog.text


@pytest.mark.slow
def test_the_probes_of_the_recipes_spend_at_most_a_third_of_two_epochs(tmp_path: Path, caplog):
    probes = standard_probes(every=1, budget=0.1)
    for probe in probes:
        probe.mean, probe.std = somebody.MEAN, somebody.STD
    trainer = somebody.quiet(tmp_path, *probes, max_epochs=2)
    started = time.perf_counter()
    trainer.fit(Slow(), somebody.loader(240), somebody.loader(90))
    share = sum(probe.seconds for probe in probes) / (time.perf_counter() - started)
    assert share <= 1 / 3, share
    figures, took = somebody.scalars(tmp_path), {f"seconds/{probe.name}" for probe in probes}
    assert took <= figures.keys()  # each looked
    assert "ClassImages 1 of 3 by" in caplog.text
    embeddings = next(probe for probe in probes if probe.name == "Embeddings")
    assert embeddings.sample is not None
    assert 16 <= len(embeddings.sample) < 90
    assert len(embeddings.memory.last["map"]) == len(embeddings.sample)
    resumed = Embeddings()
    resumed.load_state_dict(embeddings.state_dict())
    resumed.sample = embeddings.sample[[*range(len(embeddings.sample)), 0]]
    resumed.shorten_sample()
    assert len(resumed.sample) == len(embeddings.sample)


def test_all_can_afford_the_same_share():
    costs = {"a": Cost(1.0, 10, 1), "b": Cost(0.1, 100, 16, fixed=1.0)}
    assert affordable(costs, 42.0) == (1.0, set())
    share, late = affordable(costs, 22.0)
    assert not late
    assert sum(one.seconds(share) for one in costs.values()) <= 11
    assert [one.number(share) for one in costs.values()] == [5, 50]
    # the fewest take 1 and 2.6 s
    assert affordable(costs, 7.2)[1] == set()
    assert affordable(costs, 7.1)[1] == {"b"}
    share, late = affordable(costs, 4.0)
    assert late == {"a", "b"}
    assert [one.number(share) for one in costs.values()] == [1, 19]
    assert affordable(costs, 0.0) == (0.0, {"a", "b"})


def test_one_that_needs_its_first_look_looks_before_training():
    costs = {"a": Cost(5.0, 10, 1, always=True), "b": Cost(1.0, 10, 1)}
    assert affordable(costs, 0.0) == (0.0, {"b"})


def test_a_part_of_the_steps_is_less_than_one_subject():
    cost = Cost(8.0, 4, 0.25, first=1.0)
    assert [cost.number(share) for share in (0.0, 0.1, 0.3, 1.0)] == [0.25, 0.4, 1, 4]
    assert [cost.seconds(share) for share in (0.0, 0.25, 1.0)] == [3.0, 9.0, 36.0]


@pytest.mark.slow
def test_one_that_is_too_expensive_for_two_looks_looks_after_training(tmp_path: Path, caplog):
    class Long(Sleeps):
        def subjects(self, network, sample):
            return ["all"]

        def observe(self, network, sample, subjects):
            time.sleep(0.6)
            return {"all": Scalar(1.0)}

    trained(tmp_path, Long(budget=Budget(0.1, floor=0.0), **SCALE), epochs=2)
    assert len(somebody.scalars(tmp_path)["Long/all"]) == 1
    assert "the last look is always made; as the run is short, not before training: Long" in caplog.text


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
