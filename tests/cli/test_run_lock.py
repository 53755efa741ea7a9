"""Claiming a run's folder: one process at a time, and one that fails leaves nothing."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier

import pytest
from lightning.pytorch.utilities import rank_zero_only

from fulgurite.cli.run_lock import claim, claimed

ROOT = Path("runs/digits")
TRAIN = Path(__file__).parents[2] / "train.py"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


def together(count: int, work) -> list:
    barrier = Barrier(count)

    def begun(number: int):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begun, range(count)))


def test_concurrent_runs_each_get_their_own_folder():
    claims = together(24, lambda _: claim(None, root=ROOT))
    assert {own.folder.name for own in claims} == {str(number) for number in range(24)}


def test_of_many_at_once_one_has_the_folder_that_all_want():
    def wanted(number: int):
        try:
            return claim("mine", root=ROOT)
        except ValueError as error:
            return str(error)

    reported = together(8, wanted)
    assert sum(isinstance(one, str) for one in reported) == 7
    assert all("another process writes to mine" in one for one in reported if isinstance(one, str))


def test_a_folder_is_free_again_at_the_end():
    for _ in range(2):
        with claimed("mine", root=ROOT), pytest.raises(ValueError, match="another process"):
            claim("mine", root=ROOT)


def test_what_fails_removes_what_it_made_and_nothing_else():
    Path("there").mkdir()

    def broken(folder: str | None) -> None:
        with claimed(folder, root=ROOT):
            raise KeyboardInterrupt

    for folder in ("there", "deep/down/run", None):
        with pytest.raises(KeyboardInterrupt):
            broken(folder)
    assert [place.name for place in Path().iterdir()] == ["there"]


def test_what_fails_leaves_the_folders_of_others():
    with claimed(None, root=ROOT) as first:
        second = claim(None, root=ROOT)
        first.remove(content=True)
        assert (first.folder.exists(), second.folder.exists()) == (False, True)
        second.remove(content=True)
    assert list(ROOT.iterdir()) == []


def test_content_of_a_folder_that_was_there_is_never_removed():
    Path("there").mkdir()
    Path("there/mine.txt").write_text("mine")
    with claimed("there", root=ROOT) as own:
        own.remove(content=True)
    assert Path("there/mine.txt").read_text() == "mine"


def _wait(begun, end) -> None:
    begun.set()
    end.wait()


def test_a_forked_process_does_not_hold_the_folder_of_one_that_was_killed():
    own = claim("mine", root=ROOT)
    context = get_context("fork")
    begun, end = context.Event(), context.Event()
    child = context.Process(target=_wait, args=(begun, end))
    child.start()
    try:
        begun.wait()
        assert own.lock is not None
        os.close(own.lock)  # what is left of a process that is killed
        claim("mine", root=ROOT).release()
    finally:
        end.set()
        child.join()


def test_other_processes_claim_nothing_and_find_the_folder_in_the_environment(monkeypatch):
    with claimed(None, root=ROOT) as own:
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with claimed(None, root=ROOT) as theirs:
            assert theirs.folder == own.folder
        assert own.folder.exists()
    assert [place.name for place in ROOT.iterdir()] == ["0"]


@pytest.mark.parametrize("root", ["file", "file/runs"])
def test_where_no_folder_can_be_made_it_is_reported(root: str):
    Path("file").write_text("")
    with pytest.raises(OSError, match="file"):
        claim(None, root=Path(root))


SMALL = ["--epochs", "1", "--size", "8", "--batch_size", "512", "--every", "0"]
SMALL += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


@pytest.mark.slow
@pytest.mark.ranks
def test_two_runs_started_at_once_train_in_folders_of_their_own():
    command = [sys.executable, TRAIN, "fit", "digits", *SMALL]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        _, printed = run.communicate(timeout=200)
        assert run.returncode == 0, printed
    assert sorted(place.name for place in ROOT.iterdir()) == ["0", "1"]
    for place in ROOT.iterdir():
        assert {file.name for file in (place / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
        assert len(list(place.glob("events.*"))) >= 1


@pytest.mark.slow
@pytest.mark.ranks
def test_processes_that_another_launcher_started_share_the_main_one_s_folder():
    port = 29700 + os.getpid() % 200
    runs = []
    ranks = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    for rank in range(2):
        reported = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        reported |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "x"}
        environment = {**os.environ, **{name: str(value) for name, value in reported.items()}}
        command = [sys.executable, TRAIN, "fit", "digits", *SMALL, *ranks]
        runs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    for run in runs:
        _, printed = run.communicate(timeout=200)
        assert run.returncode == 0, printed
    assert [place.name for place in ROOT.iterdir()] == ["0"]
