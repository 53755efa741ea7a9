"""Two epochs on a budget: probes look at fewer classes or images, so that they take a third of the run.

Time is simulated: it passes where a network or a probe is said to take some.
"""

from pathlib import Path

import pytest
import somebody
import torch
from simulated_time import CLOCK, IMAGE, SCALE, Sleeps, Slow, SlowStep, Steps, Whole, simulate, trained
from torch.utils.data import DataLoader

from fulgurite.callbacks.class_images import ClassImages
from fulgurite.callbacks.embeddings import Embeddings
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.cost import PASSES, Cost, _batch_size, _learning, _passes
from fulgurite.callbacks.framework.foretold import Foretell, Foretold
from fulgurite.callbacks.framework.short_run import affordable
from fulgurite.callbacks.metrics import Metrics
from fulgurite.recipes.recipe import standard_probes


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch):
    simulate(monkeypatch)


def test_two_epochs_spend_at_most_a_third_of_the_time_on_probes(tmp_path: Path, caplog):
    probe = Sleeps(budget=Budget(0.1, floor=0.0), **SCALE)
    share = trained(tmp_path, probe, epochs=2)
    looked = {tag for tag in somebody.scalars(tmp_path) if tag.startswith("Sleeps/")}
    assert share <= 1 / 3, share
    assert 1 <= len(looked) < 12
    assert all(len(somebody.scalars(tmp_path)[tag]) == 2 for tag in looked)
    assert f"as the training is short, on fewer: Sleeps {len(looked)} of 20 images" in caplog.text
    assert caplog.text.count("probes: 1, ") == 1
    assert "every 1 epochs" not in caplog.text


def test_the_probes_of_the_recipes_spend_at_most_a_third_of_two_epochs(tmp_path: Path):
    probes = standard_probes(every=1, budget=0.1)
    for probe in probes:
        probe.mean, probe.std = somebody.MEAN, somebody.STD
    trainer = somebody.quiet(tmp_path, *probes, max_epochs=2)
    started = CLOCK.now
    trainer.fit(Slow(), somebody.loader(240), somebody.loader(90))
    share = sum(probe.seconds for probe in probes) / (CLOCK.now - started)
    assert share <= 1 / 3, share
    figures, took = somebody.scalars(tmp_path), {f"seconds/{probe.name}" for probe in probes}
    assert took <= figures.keys()  # each looked
    limits = {probe.name: probe.limited_to for probe in probes}
    assert limits["ClassImages"].startswith("1 of 3 classes (")
    embeddings = next(probe for probe in probes if probe.name == "Embeddings")
    assert embeddings.sample is not None
    assert 16 <= len(embeddings.sample) < 90
    assert len(embeddings.memory.last["map"]) == len(embeddings.sample)
    resumed = Embeddings()
    resumed.load_state_dict(embeddings.state_dict())
    resumed.sample = embeddings.sample[[*range(len(embeddings.sample)), 0]]
    resumed.shorten_sample()
    assert len(resumed.sample) == len(embeddings.sample)


def test_another_training_and_one_without_a_budget_look_at_all_again(tmp_path: Path, caplog):
    probe = Sleeps(budget=Budget(0.1, floor=0.0), **SCALE)
    trainer = somebody.quiet(tmp_path / "1", probe, max_epochs=2)
    trainer.fit(Slow(), somebody.loader(), somebody.loader(9))
    assert probe.title("s00").endswith(f", {probe.limited_to}")
    assert probe.limited_to.endswith(" of 20 images")
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    saved, most = probe.state_dict(), probe.memory.most
    assert most is not None
    # resumed: as many as before, said again; all without a budget, or where the run is no longer short
    for budget, epochs, wanted in (
        (Budget(0.1, floor=0.0), 3, most),
        (None, 3, None),
        (Budget(0.1, floor=0.0), 14, None),
    ):
        again = Sleeps(budget=budget, **SCALE)
        again.load_state_dict(saved)
        caplog.clear()
        somebody.quiet(tmp_path / "2", again, max_epochs=epochs).fit(
            Slow(), somebody.loader(), somebody.loader(9), ckpt_path=tmp_path / "two.ckpt"
        )
        assert again.memory.most == wanted
        assert ("on fewer: Sleeps" in caplog.text) == (wanted is not None)


def test_batches_of_a_sampler_have_a_size():
    batches = [[0, 1], [2], [3, 4, 5]]
    loader = DataLoader(somebody.Blobs(6), batch_sampler=batches)
    assert _batch_size(loader) == 2.0
    assert _batch_size(somebody.loader()) == 8
    assert _batch_size(DataLoader(somebody.Blobs(6), batch_size=None)) == 1.0
    assert _batch_size(iter([])) is None


def test_a_budget_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="budget=True; wanted a share of the training time"):
        Metrics(budget=True)


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


def test_one_that_needs_its_first_run_runs_before_training():
    costs = {"a": Cost(5.0, 10, 1, always=True), "b": Cost(1.0, 10, 1)}
    assert affordable(costs, 0.0) == (0.0, {"b"})


def test_a_part_of_the_steps_is_less_than_one_subject():
    cost = Cost(8.0, 4, 0.25, first=1.0)
    assert [cost.number(share) for share in (0.0, 0.1, 0.3, 1.0)] == [0.25, 0.4, 1, 4]
    assert [cost.seconds(share) for share in (0.0, 0.25, 1.0)] == [3.0, 9.0, 36.0]


def test_one_that_is_too_expensive_for_two_runs_has_one_after_training(tmp_path: Path, caplog):
    trained(tmp_path, Whole(0.25, budget=Budget(0.1, floor=0.0), **SCALE), epochs=2)
    assert len(somebody.scalars(tmp_path)["Whole/all"]) == 1
    assert "as the training is short, not before its end: Whole" in caplog.text


def test_a_longer_run_looks_at_all(tmp_path: Path, caplog):
    probe = Sleeps(budget=Budget(0.1, floor=0.0), **SCALE)
    trained(tmp_path, probe, epochs=12)
    assert len([tag for tag in somebody.scalars(tmp_path) if tag.startswith("Sleeps/")]) == 20
    assert "fewer" not in caplog.text


def test_without_a_budget_nothing_is_left_out(tmp_path: Path, caplog):
    trained(tmp_path, Sleeps(**SCALE), epochs=1)
    assert len([tag for tag in somebody.scalars(tmp_path) if tag.startswith("Sleeps/")]) == 20
    assert "no budget limits them" in caplog.text


def test_class_images_are_of_fewer_classes_and_measuring_changes_no_training(tmp_path: Path):
    ends, budget = [], Budget(0.1, floor=0.0)
    images = ClassImages(budget=budget, **SCALE)
    for probes in ([], [images, Metrics(budget=budget, **SCALE)]):
        torch.manual_seed(0)
        model = somebody.Theirs()
        trainer = somebody.quiet(tmp_path / str(len(probes)), *probes, max_epochs=2)
        trainer.fit(model, somebody.loader(), somebody.loader(9))
        ends.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    assert torch.equal(*ends)
    assert images.limited_to.startswith("1 of 3 classes")


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


@pytest.mark.parametrize("takes", [1.0, 3.0, 6.0])
def test_probes_that_are_too_expensive_share_what_is_left_the_least_expensive_first(
    tmp_path: Path, caplog, takes: float
):
    budget = Budget(0.1, floor=0.0)
    probes = [Steps(takes * (n + 1) / 45, name=f"P{n}", budget=budget, **SCALE) for n in range(9)]
    share = trained(tmp_path, *probes, epochs=2)
    assert share <= 1 / 3, share
    out = [probe.name for probe in probes if probe.left_out]
    assert out == [f"P{n}" for n in range(9)][9 - len(out) :]
    assert {1.0: 0, 3.0: 4}.get(takes, len(out)) == len(out)
    ran = {tag.removesuffix("/all") for tag in somebody.scalars(tmp_path) if tag.endswith("/all")}
    assert ran == {probe.name for probe in probes} - {*out}
    line = f"left out, as the training was too short for them: {', '.join(out)}; "
    assert caplog.text.count(line) == (1 if out else 0)
    assert ("(budget=1, " in caplog.text) == bool(out)


@pytest.mark.parametrize("takes", [0.02, 0.1])
def test_those_that_there_is_no_time_to_measure_run_after_training_for_as_long_as_there_is_time(
    tmp_path: Path, caplog, takes: float
):
    probes = [Whole(takes, name=f"P{n}", budget=Budget(0.1, floor=0.0), **SCALE) for n in range(9)]
    assert trained(tmp_path, *probes, epochs=2) <= 1 / 3
    out = [probe.name for probe in probes if probe.left_out]
    ran = [probe.name for probe in probes if f"{probe.name}/all" in somebody.scalars(tmp_path)]
    assert [*ran, *out] == [probe.name for probe in probes]
    assert bool(out) == (takes == 0.1)


def test_with_a_larger_budget_they_run(tmp_path: Path):
    budget = Budget(1.0, floor=0.0)
    probes = [Whole(0.1, name=f"P{place}", budget=budget, **SCALE) for place in range(9)]
    trained(tmp_path, *probes, epochs=2)
    assert not any(probe.left_out for probe in probes)


def test_a_network_with_a_slow_training_step_is_no_short_run_once_that_is_known(tmp_path: Path, caplog):
    probes = [
        Sleeps(budget=Budget(0.1, floor=0.0), **SCALE),
        Embeddings(budget=Budget(0.1, floor=0.0), **SCALE),
    ]
    share = trained(tmp_path, *probes, epochs=2, model=SlowStep())
    assert share <= 1 / 3, share
    assert "as the training is short" in caplog.text
    assert "probes now run on all their images and classes" in caplog.text
    assert [probe.memory.most for probe in probes] == [None, None]
    assert [probe.limited_to for probe in probes] == ["", ""]
    last = [tag for tag in somebody.scalars(tmp_path) if tag.startswith("Sleeps/")]
    assert len(last) == 20


def test_a_backward_pass_to_what_learns_is_timed_and_calls_no_hook_of_its_parameters():
    model, called = Slow(), []
    for parameter in model.parameters():
        parameter.register_hook(called.append)
    images = torch.rand(4, 3, 12, 12)
    assert _passes(model, images, [*model.parameters()]) == pytest.approx((IMAGE, 3 * IMAGE))
    assert not called
    assert all(parameter.grad is None for parameter in model.parameters())
    assert _passes(model, images, []) == pytest.approx((IMAGE, PASSES * IMAGE))


def test_the_groups_that_a_finetuning_freezes_do_not_count_as_learning():
    body, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    groups = [{"params": [*body.parameters()], "frozen": True}, {"params": [*head.parameters()]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    trainer = somebody.quiet(Path())
    trainer.strategy.optimizers = [optimizer]
    assert [id(one) for one in _learning(trainer)] == [id(one) for one in head.parameters()]


def test_what_the_budget_will_do_is_foretold(tmp_path: Path):
    budget = {"budget": Budget(0.1, floor=0.0), **SCALE}
    probes = [
        *(Steps(3.0 * (n + 1) / 45, name=f"P{n}", **budget) for n in range(9)),
        Sleeps(budget=Budget(0.1, floor=0.0), **SCALE),
        Whole(1.0, name="free", **SCALE),
    ]

    def lines(epochs: int) -> dict[str, str]:
        foretell = Foretell(probes)
        with pytest.raises(Foretold):
            somebody.quiet(tmp_path, foretell, max_epochs=epochs).fit(
                Slow(), somebody.loader(), somebody.loader(9)
            )
        assert foretell.lines[-1] == "no budget limits free, so their cost is not measured here"
        return dict(line.split(": ", 1) for line in foretell.lines[:-1])

    short, longer = lines(2), lines(100)
    assert "only after training, up to 16 images, within 10%" in short["P8"]
    assert (
        "a run takes about 0.15 s; as the training is short, on 1 of 1 images (25% of the usual steps)"
        in short["P8"]
    )
    assert "(0.6 s on all); probably left out" in short["P8"]
    assert "left out" not in short["P0"]
    assert (
        "a run takes about 0.05 s; as the training is short, on 1 of 20 images (1 s on all)"
        in short["Sleeps"]
    )
    assert all("before training and every epoch" in line for line in longer.values())
    assert not any("short" in line or "left out" in line for line in longer.values())
    assert "a run takes about 1 s" in longer["Sleeps"]
    assert short["free"] == "before training and every epoch, up to 16 images"
    assert not list(tmp_path.rglob("*.png"))
    assert somebody.scalars(tmp_path) == {}
