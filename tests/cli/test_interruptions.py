"""Runs that a signal, a full disk, a job's end or their patience ends."""

import contextlib
import errno
import functools
import json
import os
import shutil
import signal
import stat
import threading
from pathlib import Path

import pytest
import somebody
import torch
from interrupted_runs import AGAIN, WORDS, PowerCutError, assert_same, cut, during

from fulgurite.cli.command import main
from fulgurite.cli.errors import Ended
from fulgurite.cli.interruptions import Signals
from fulgurite.models.classifier import Classifier
from fulgurite.recipes import digits


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_full_disk_keeps_the_old_checkpoint_and_prints_a_remedy(
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


def test_a_disk_full_before_the_first_checkpoint_leaves_nothing_with_a_message(
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


SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_signal_ends_a_run_with_its_status_and_a_line_on_how_to_resume(
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


@pytest.mark.slow
def test_a_requeued_slurm_job_resumes_its_run(
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


def test_the_end_of_a_loaders_workers_does_not_take_the_place_of_the_runs_end():
    def died(signum, frame):
        raise RuntimeError("a worker is killed by a signal")

    both = {signal.SIGTERM, signal.SIGCHLD}

    def probe():
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        for signum in both:
            signal.pthread_kill(threading.get_ident(), signum)
        with contextlib.suppress(Exception):  # as for a probe that fails
            signal.pthread_sigmask(signal.SIG_UNBLOCK, both)

    before = signal.signal(signal.SIGCHLD, died)
    try:
        with Signals().watched(), pytest.raises(Ended, match="ended by SIGTERM"):
            probe()
        assert signal.getsignal(signal.SIGCHLD) is died
    finally:
        signal.signal(signal.SIGCHLD, before)
