"""What a run keeps: best and last checkpoint, their scores, its events, and what ends it before its time."""

import errno
import functools
import json
import os
import shutil
import signal
import stat
from pathlib import Path

import pytest
import somebody
import torch
from tensorboard.summary.writer import event_file_writer

from fulgurite.cli import checkpointing
from fulgurite.cli.checkpointing import AtomicIO
from fulgurite.cli.command import main
from fulgurite.cli.tensorboard_events import Events
from fulgurite.models.classifier import Classifier
from fulgurite.recipes import digits

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
WORDS = ["fit", "digits", "--epochs", "3", "--size", "8", "--batch_size", "256", "--every", "0", *QUIET]
AGAIN = ["fit", "digits", "--resume", "run", *QUIET]


class PowerCutError(Exception):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "whole"
    assert main([*WORDS, "--folder", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


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


def content(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


# checkpoints


def test_a_damaged_last_checkpoint_falls_back_to_the_best_and_says_so(run: Path, finished: Path):
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.warns(UserWarning, match=r"last.ckpt cannot be read: .*; the run goes on from .*best.ckpt"):
        assert main(AGAIN) == 0
    assert_same(run, finished)


@pytest.mark.parametrize("epochs", [[], ["--epochs", "4"]], ids=["finished", "to train on"])
def test_a_damaged_result_of_the_test_is_found_before_the_training(
    run: Path, epochs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(Classifier, "training_step", during(3, cut))
    (run / "test.json").write_text((run / "test.json").read_text()[:30])
    before = content(run)
    assert main([*AGAIN, *epochs]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: run/test.json is damaged: ")
    assert said.endswith("; remove it, and the run goes on and is tested again")
    assert content(run) == before


def test_a_kill_between_best_and_last_loses_neither(monkeypatch: pytest.MonkeyPatch, finished: Path):
    save = AtomicIO.save_checkpoint

    def half(self, checkpoint, path, storage_options=None):
        if checkpoint["epoch"] == 1 and path.name == "last.ckpt":
            raise PowerCutError
        save(self, checkpoint, path)

    monkeypatch.setattr(checkpointing.Checkpoints, "_is_best", lambda *_: True)
    assert main([*WORDS, "--folder", "other"]) == 0
    monkeypatch.delenv("FULGURITE_RUN")
    with monkeypatch.context() as patch:
        patch.setattr(AtomicIO, "save_checkpoint", half)
        with pytest.raises(PowerCutError):
            main([*WORDS, "--folder", "run"])
    assert [somebody.checkpoint(Path("run"), which)["epoch"] for which in ("last", "best")] == [0, 1]
    assert main(AGAIN) == 0
    assert_same(Path("run"), Path("other"))


def test_the_score_to_beat_is_that_of_the_best_checkpoint_itself(run: Path):
    best = run / "checkpoints" / "best.ckpt"
    state = torch.load(best, weights_only=True)
    assert state["callbacks"]["Checkpoints"]["best"] == pytest.approx(
        max(value for _, value in somebody.scalars(run)["val/accuracy"])
    )
    # as if it had been reached just before a kill, and were not reached again
    state["callbacks"]["Checkpoints"]["best"] = 2.0
    torch.save(state, best)
    before = best.read_bytes()
    assert main([*AGAIN, "--epochs", "4"]) == 0
    assert best.read_bytes() == before
    assert somebody.checkpoint(run)["callbacks"]["Checkpoints"]["best"] == 2.0


def test_the_best_within_an_epoch_is_kept_and_not_resumed_from(monkeypatch: pytest.MonkeyPatch):
    words = [*WORDS, "--trainer.val_check_interval", "0.6", "--folder"]
    assert main([*words, "whole"]) == 0
    monkeypatch.delenv("FULGURITE_RUN")
    best = somebody.checkpoint(Path("whole"), "best")
    assert best["callbacks"]["Checkpoints"]["whole"] is False
    assert best["global_step"] % 5 == 3
    interrupted(monkeypatch, 1, words[:-1])
    assert main(AGAIN) == 0
    assert_same(Path("run"), Path("whole"))


@pytest.mark.parametrize("count", [9, 99])
def test_events_are_in_order_whatever_their_files_are_numbered(monkeypatch: pytest.MonkeyPatch, count: int):
    """In the same second, the tenth file of a process would be read before the ninth."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(count))
    for step in range(2):
        logger = Events(Path("run"))
        logger.log_metrics({"figure": step}, step)
        logger.finalize("success")
    assert len(names := sorted(path.name for path in Path("run").glob("events.*"))) == 2
    assert [int(name.rpartition(".")[2]) for name in names] == [count, count + 1]


def test_a_full_disk_leaves_the_checkpoint_that_was_there_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, finished: Path
):
    def full(state, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save = torch.save
    with monkeypatch.context() as patch:
        step = during(1, lambda: patch.setattr(torch, "save", full))
        patch.setattr(Classifier, "training_step", step)
        assert main([*WORDS, "--folder", "run"]) == 2
    assert torch.save is save
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: there is no space left for run: free some; the run stopped after 1 epoch;")
    assert line.endswith("go on with it: fulgurite fit digits --resume run")
    assert somebody.checkpoint(Path("run"))["epoch"] == 0
    assert not list(Path("run").rglob("*.tmp"))
    assert main(AGAIN) == 0
    assert_same(Path("run"), finished)


def test_a_disk_that_is_full_before_the_first_checkpoint_leaves_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, finished: Path
):
    def full(state, file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        assert main([*WORDS, "--folder", "run"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.endswith("no checkpoint could be written; then begin again with the same command")
    assert not Path("run").exists()
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    assert main([*WORDS, "--folder", "run"]) == 0
    assert_same(Path("run"), finished)


def test_a_resumed_run_that_ends_in_its_first_epoch_knows_of_those_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", during(1, lambda: signal.raise_signal(signal.SIGTERM)))
        assert main([*WORDS, "--folder", "run"]) == 143
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", during(1, lambda: signal.raise_signal(signal.SIGTERM)))
        assert main(AGAIN) == 143
    assert "the run stopped after 1 epoch;" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_in_a_checkpoint_s_place_is_named():
    Path("run/checkpoints/last.ckpt").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"last.ckpt is a folder; wanted a checkpoint"):
        checkpointing.resume_point(Path("run/checkpoints"))


# resumed


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(
    monkeypatch: pytest.MonkeyPatch, finished: Path, caplog: pytest.LogCaptureFixture
):
    interrupted(monkeypatch, 0)
    assert not Path("run/checkpoints").exists()
    assert main(AGAIN) == 0
    assert "no epoch of run was finished: it starts again" in caplog.text
    assert_same(Path("run"), finished)


def test_a_run_that_was_killed_in_its_test_is_tested_and_no_more(
    monkeypatch: pytest.MonkeyPatch, finished: Path
):
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "test_step", lambda *_: cut())
        with pytest.raises(PowerCutError):
            main([*WORDS, "--folder", "run"])
        patch.setattr(Classifier, "test_step", Classifier.test_step)
    last = Path("run/checkpoints/last.ckpt").read_bytes()
    assert main(AGAIN) == 0
    assert Path("run/checkpoints/last.ckpt").read_bytes() == last
    assert_same(Path("run"), finished)


def test_a_finished_run_says_so_and_is_left_as_it_is(
    run: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
):
    before = content(run)
    assert main(AGAIN) == 0
    assert "run is finished: test/loss" in caplog.text or "run is finished: test/accuracy" in caplog.text
    assert "test/accuracy" not in capsys.readouterr().out
    assert content(run) == before


def test_a_run_that_its_patience_has_ended_does_not_go_on(monkeypatch: pytest.MonkeyPatch):
    made = digits.recipe

    @functools.wraps(made)
    def impatient(**knobs):
        recipe = made(**knobs)
        recipe.patience = 1
        return recipe

    monkeypatch.setattr(digits, "recipe", impatient)
    words = [*WORDS, "--epochs", "9", "--lr", "1e-12"]
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "test_step", lambda *_: cut())
        with pytest.raises(PowerCutError):
            main([*words, "--folder", "run"])
    ended = somebody.checkpoint(Path("run"))["epoch"]
    assert ended < 8
    monkeypatch.setattr(digits, "recipe", impatient)
    assert main(AGAIN) == 0
    assert somebody.checkpoint(Path("run"))["epoch"] == ended


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(run: Path):
    left = run / "checkpoints" / ".last.ckpt.0123456789abcdef.tmp"
    mine = run / ".mine.tmp"
    for file in (left, mine):
        file.write_bytes(b"half")
    assert main([*AGAIN, "--epochs", "4"]) == 0
    assert not left.exists()
    assert mine.exists()


def test_events_of_others_in_a_folder_without_a_run_stay(tmp_path: Path):
    other = tmp_path / "run" / "events.out.tfevents.0.other"
    other.parent.mkdir()
    other.write_bytes(b"")
    assert main([*WORDS, "--epochs", "1", "--folder", "run"]) == 0
    assert other.exists()


def test_a_link_among_the_events_is_not_followed(run: Path, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (run / "events.out.tfevents.0.link").symlink_to(precious)
    assert main([*AGAIN, "--epochs", "4"]) == 0
    assert precious.read_bytes() == b"precious"


# signals


SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_signal_ends_a_run_with_its_status_and_a_line_that_says_how_to_go_on(
    signum: int, epoch: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, finished: Path
):
    before = signal.getsignal(signum)
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", during(epoch, lambda: signal.raise_signal(signum)))
        assert main([*WORDS, "--folder", "run"]) == SIGNALS[signum]
    assert signal.getsignal(signum) == before
    line = capsys.readouterr().err.strip().splitlines()[-1]
    stopped = "after 1 epoch" if epoch else "before the end of the first epoch"
    assert line == (
        f"ended by {signal.Signals(signum).name}; the run stopped {stopped}; "
        "go on with it: fulgurite fit digits --resume run"
    )
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    assert main(AGAIN) == 0
    assert_same(Path("run"), finished)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_before_training_says_that_nothing_was_trained(
    signum: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(digits, "build", lambda *_, **__: signal.raise_signal(signum))
    assert main([*WORDS, "--folder", "run"]) == SIGNALS[signum]
    assert "nothing was trained; begin again" in capsys.readouterr().err
    assert not Path("run").exists()


def test_a_job_that_slurm_queues_again_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, finished: Path
):
    asked = tmp_path / "asked"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    job = {"JOB_ID": "4711", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "fit"}
    for name, value in {**job, "NTASKS_PER_NODE": "1", "NNODES": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    with monkeypatch.context() as patch:
        step = during(1, lambda: signal.raise_signal(signal.SIGUSR1))
        patch.setattr(Classifier, "training_step", step)
        assert main(WORDS) == 128 + signal.SIGUSR1
    assert asked.read_text() == "requeue 4711\n"
    assert json.loads(Path("runs/digits/0/job.json").read_text())["job"] == "4711"
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main(WORDS) == 0
    assert [path.name for path in Path("runs/digits").iterdir()] == ["0"]
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert_same(Path("runs/digits/0"), finished)
    # another command of the same job has a run of its own
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    assert main([*WORDS, "--epochs", "1"]) == 0
    assert sorted(path.name for path in Path("runs/digits").iterdir()) == ["0", "1"]
