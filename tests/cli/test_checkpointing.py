"""Checkpoints of a run: best and last, their scores, events, and early stopping."""

import shutil
import signal
from pathlib import Path

import pytest
import somebody
import torch
from interrupted_runs import AGAIN, WORDS, PowerCutError, assert_same, cut, during, interrupted
from tensorboard.summary.writer import event_file_writer

from fulgurite.cli import checkpointing
from fulgurite.cli.checkpointing import AtomicIO
from fulgurite.cli.command import main
from fulgurite.cli.tensorboard_events import Events
from fulgurite.models.classifier import Classifier


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def content(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


# checkpoints


def test_a_damaged_last_checkpoint_falls_back_to_the_best_with_a_warning(run: Path, finished: Path):
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
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("error: run/test.json is damaged: ")
    assert printed.endswith("; remove it, and the run continues and is tested again")
    assert content(run) == before


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_finished_run_is_reported_and_not_changed(
    run: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
):
    before = content(run)
    assert main(AGAIN) == 0
    assert "run is finished: test/loss" in caplog.text or "run is finished: test/accuracy" in caplog.text
    assert "test/accuracy" not in capsys.readouterr().out
    assert content(run) == before


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
