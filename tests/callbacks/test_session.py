"""The session of a Trainer's probes: one budget, their order, failures that do not end training."""

import pickle
import signal
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
import somebody
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from torch.utils.data import DataLoader

from fulgurite.callbacks.filters import Filters
from fulgurite.callbacks.framework.artifacts import Picture, Scalar
from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.exchange import exchange
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.framework.session import Session
from fulgurite.callbacks.metrics import Metrics
from fulgurite.callbacks.saliency import Saliency

SCALE = {"mean": somebody.MEAN, "std": somebody.STD}
CPU = torch.device("cpu")


class Sleeps(ProbeCallback):
    def subjects(self, network, sample):
        return ["a"]

    def observe(self, network, sample, subjects):
        time.sleep(0.05)
        return {"a": Scalar(1.0)}


class Slow(somebody.Theirs):
    def training_step(self, batch, number):
        time.sleep(0.03)
        return super().training_step(batch, number)


@pytest.mark.slow
def test_a_real_run_keeps_its_budget_and_reports_it_in_one_line(tmp_path: Path, caplog):
    budget = {"budget": Budget(0.3, floor=0.0), **SCALE}
    probes = [Sleeps(name=name, **budget) for name in ("A", "B")]
    trainer = somebody.quiet(tmp_path, *probes, max_epochs=25)
    started = time.perf_counter()
    trainer.fit(Slow(), somebody.loader(), somebody.loader(9))
    run = time.perf_counter() - started
    spent = sum(probe.seconds for probe in probes)
    first_and_last = 4 * 0.1
    assert spent <= 0.3 * (run - spent) + first_and_last
    looks = {name: len(somebody.scalars(tmp_path)[f"{name}/a"]) for name in ("A", "B")}
    assert all(3 <= count < 15 for count in looks.values()), looks
    assert caplog.text.count("probes: 2, ") == 1
    assert caplog.text.count("then 30% of the training time, and the last run of each; in all at most") == 1
    assert "look about" not in caplog.text  # one line says it all


def test_probes_without_a_budget_are_not_said_to_have_one(tmp_path: Path, caplog):
    probes = [Saliency(budget=0.1, images=1, **SCALE), Filters(**SCALE)]
    somebody.quiet(tmp_path, *probes).fit(somebody.Theirs(), somebody.loader(8), somebody.loader(9))
    assert "those with a budget at most about " in caplog.text
    assert "; without limit: Filters" in caplog.text


def test_numbers_make_one_budget_and_two_of_them_are_reported(tmp_path: Path):
    probes = [Saliency(budget=0.1, **SCALE), Filters(budget=0.1, **SCALE), Metrics(**SCALE)]
    session = Session()
    trainer = somebody.quiet(tmp_path, *probes)
    session.check_trainer(probes[0], trainer)
    probes[1].budget = Budget(0.2)
    with pytest.raises(ValueError, match=r"share one budget, but have 0\.1 .* and 0\.2"):
        session.check_trainer(probes[0], trainer)


def test_fsdp_raises_a_clear_error(tmp_path: Path):
    trainer = somebody.quiet(tmp_path, Filters(**SCALE))
    trainer._accelerator_connector.strategy = FSDPStrategy()
    with pytest.raises(ValueError, match=r"FSDPStrategy splits it among processes; train with"):
        Session().check_trainer(trainer.callbacks[0], trainer)


class NoKernel(ProbeCallback):
    """Fails in `check`, as an operator that this machine lacks, and then so often in a look."""

    def __init__(self, times: int = 0, **schedule):
        super().__init__(**schedule)
        self.times = times

    def check(self, network, sample):
        raise RuntimeError("no deterministic kernel")

    def subjects(self, network, sample):
        return ["a"]

    def observe(self, network, sample, subjects):
        self.times -= 1
        if self.times >= 0:
            raise RuntimeError("no deterministic kernel")
        return {"a": Scalar(1.0)}


def texts(folder: Path) -> dict[str, list[str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    run.Reload()
    return {
        tag: [event.tensor_proto.string_val[0].decode() for event in run.Tensors(tag)]
        for tag in run.Tags()["tensors"]
    }


def test_a_failure_in_check_is_reported_with_its_traceback_and_ends_no_training(tmp_path: Path):
    with pytest.warns(
        UserWarning, match="NoKernel failed, training goes on: RuntimeError: no det"
    ) as reported:
        trainer = somebody.fit(tmp_path, NoKernel(**SCALE))
    assert trainer.global_step == 6
    (warning,) = [one for one in reported if "failed" in str(one.message)]
    assert "in check\n" in str(warning.message)
    assert 'raise RuntimeError("no deterministic kernel")' in str(warning.message)
    (trace,) = texts(tmp_path)["failures/NoKernel/text_summary"]
    assert "in check\n" in trace
    # it may be well at the looks themselves
    assert [step for step, _ in somebody.scalars(tmp_path)["NoKernel/a"]] == [0, 3, 6]


@pytest.mark.filterwarnings("ignore:NoKernel failed, training goes on")
def test_failures_in_check_and_at_looks_count_together(tmp_path: Path):
    probe = NoKernel(times=2, **SCALE)
    with pytest.warns(UserWarning, match="NoKernel failed 3 times in a row and is switched off"):
        somebody.fit(tmp_path, probe, max_epochs=5)
    assert probe.times == 0
    assert "NoKernel/a" not in somebody.scalars(tmp_path)


def test_a_failure_in_check_can_end_training(tmp_path: Path):
    with pytest.raises(RuntimeError, match="NoKernel failed: RuntimeError: no det") as error:
        somebody.fit(tmp_path, NoKernel(on_error="raise", **SCALE))
    assert any("in check" in note for note in error.value.__notes__)


class Broken(somebody.Blobs):
    broken = True

    def __getitem__(self, index):
        if self.broken:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


class Unbroken(pl.Callback):
    """By the time of the first validation, the images can be read."""

    def on_train_epoch_start(self, trainer, *_):
        trainer.val_dataloaders.dataset.broken = False


def test_without_images_a_probe_stays_out(tmp_path: Path):
    with pytest.warns(UserWarning, match="Filters failed, training goes on: OSError: the disk is gone"):
        trainer = somebody.fit(
            tmp_path, Filters(**SCALE), Unbroken(), data=DataLoader(Broken(8)), num_sanity_val_steps=0
        )
    assert trainer.global_step == 6
    assert not somebody.images(tmp_path)


ORDER: list[str] = []


class Orders(ProbeCallback):
    def subjects(self, network, sample):
        return ["a"]

    def observe(self, network, sample, subjects):
        ORDER.append(f"{self.name} {self.look.label}")
        return {}


def test_the_probe_that_has_not_looked_for_longest_is_first(tmp_path: Path):
    ORDER.clear()
    probes = [Orders(name=name, every=every, **SCALE) for name, every in (("A", 1), ("B", 2), ("C", 3))]
    somebody.fit(tmp_path, *probes, max_epochs=6)
    assert [
        *("A start", "B start", "C start", "A 1", "B 2", "A 2", "C 3", "A 3", "B 4", "A 4", "A 5"),
        *("C 6", "B 6", "A 6"),
    ] == ORDER


class Shows(ProbeCallback):
    def subjects(self, network, sample):
        return ["a"]

    def observe(self, network, sample, subjects):
        return {"a": Picture(torch.full((3, 8, 8), self.look.step, dtype=torch.uint8))}


class Interrupts(pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.current_epoch == 2:
            signal.raise_signal(signal.SIGINT)


def test_films_survive_ctrl_c(tmp_path: Path):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        somebody.fit(tmp_path, Shows(**SCALE), Interrupts(), max_epochs=5)
    tags = somebody.images(tmp_path)
    assert ("Shows/film", 6) in tags
    # the start and two epochs side by side
    assert tags["Shows/film", 6].shape[2] > 3 * 8


class Elsewhere(torch.Tensor):
    """A tensor that pretends to be on a GPU."""

    @property
    def device(self):
        return torch.device("cuda", 0)

    def cpu(self, *_):
        return self.as_subclass(torch.Tensor) + 1

    def __reduce_ex__(self, _):
        raise AssertionError("it would be sent with its device")


def test_values_leave_for_other_processes_on_the_cpu():
    sample = Sample(torch.zeros(1, 1, 2, 2), None, (), torch.device("cuda", 0))
    values = {"a": [torch.zeros(2).as_subclass(Elsewhere), (torch.ones(2), "b")], "c": sample}
    failure, reply = exchange(lambda: values, lambda everyones: [pickle.loads(one) for one in everyones])
    assert failure is None
    ((came),) = reply
    assert torch.equal(came["a"][0], torch.ones(2))
    assert type(came["a"][0]) is torch.Tensor
    assert torch.equal(came["a"][1][0], torch.ones(2))
    assert came["c"].device == CPU


class Epochs(ProbeCallback):
    """Notes at which epoch it looks."""

    def __init__(self, **schedule):
        super().__init__(**schedule)
        self.epochs = []

    def subjects(self, network, sample):
        return ["all"]

    def observe(self, network, sample, subjects):
        self.epochs.append(self.look.epoch)
        return {}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_finished_network_is_looked_at_as_of_the_epoch_of_its_checkpoint(tmp_path: Path):
    middle = ModelCheckpoint(tmp_path / "kept", filename="{epoch}", save_top_k=-1)
    trainer = somebody.quiet(
        tmp_path / "run", Epochs(**SCALE), middle, max_epochs=3, enable_checkpointing=True
    )
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    for file, epoch in ((tmp_path / "kept" / "epoch=1.ckpt", 2), (tmp_path / "after.ckpt", 3)):
        probe = Epochs(**SCALE)
        somebody.quiet(tmp_path / file.stem, probe).validate(
            somebody.Theirs(), somebody.loader(9), ckpt_path=str(file), verbose=False
        )
        assert probe.epochs == [epoch]


def test_a_run_that_ends_early_is_looked_at_once_more(tmp_path: Path):
    class Ends(pl.Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = trainer.current_epoch == 1

    trainer = somebody.quiet(tmp_path, Filters(every=3, **SCALE), Ends(), max_epochs=9)
    trainer.fit(somebody.Theirs(), somebody.loader(), somebody.loader(9))
    assert {step for tag, step in somebody.images(tmp_path) if tag == "Filters/features.0"} == {0, 6}
    assert ("Filters/film", 6) in somebody.images(tmp_path)
