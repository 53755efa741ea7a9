"""A run ended by SIGTERM or Ctrl-C prints how to resume, has the status of a shell, and loses nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.killed import QUIET, RUNS, differences, whole

TESTS = Path(__file__).parents[1]
TRAIN = TESTS.parent / "train.py"
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}
TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
FIT = ["fit", "digits", *RUNS["digits"], *QUIET]


def ended(folder: Path, signum: int, phase: str, call: int) -> list[str]:
    """The faults of a run that gets a signal at the nth call in a phase, and is resumed."""
    place = folder / f"{signal.Signals(signum).name}-{phase}-{call}"
    place.mkdir()
    held = [sys.executable, "-m", "faults.held"]
    process = _started([*held, phase, str(call), "held", *FIT, "--folder", "run"], place)
    _until((place / "held").exists, process)
    os.killpg(process.pid, signum)
    status = process.wait(60)
    again = [*held, "never", "0", "held"]  # with probes as brief as those of the whole run
    return _judged(place, signum, status, folder / "whole" / "run", again)


def _judged(place: Path, signum: int, status: int, other: Path, train: list[str]) -> list[str]:
    """The faults of how a run ended; it is then resumed, and compared with another."""
    printed, saved = (place / "output.txt").read_text(), (place / "run/checkpoints/last.ckpt").exists()
    line = printed.strip().splitlines()[-1]
    wrong = [f"status {status}: {printed[-500:]}"] if status != STATUS[signum] else []
    how = f"ended by {signal.Signals(signum).name}; the run stopped {'after' if saved else 'before'} "
    if not line.startswith(how) or not line.endswith(" fit digits --resume run"):
        wrong.append(f"last line: {line}")
    if printed.count("ended by SIG") != 1 or "Traceback" in printed:
        wrong.append(f"printed: {printed[-1000:]}")
    again = [*train, "fit", "digits", "--resume", "run", *QUIET]
    done = subprocess.run(again, cwd=place, env=_surroundings(), capture_output=True, text=True)
    if done.returncode != 0:
        return [*wrong, f"resumed: {done.stderr[-500:]}"]
    return wrong + differences(other, place / "run")


def _started(words: list[str], place: Path) -> subprocess.Popen:
    """A command in its own process group, as a shell starts it."""
    with (place / "output.txt").open("w") as output:
        how = {"cwd": place, "env": _surroundings(), "stdout": output, "stderr": output}
        return subprocess.Popen(words, start_new_session=True, **how)


def _surroundings() -> dict[str, str]:
    # without what another run in this process has noted of itself
    kept = {name: value for name, value in os.environ.items() if name != "FULGURITE_RUN"}
    return {**kept, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}


def _until(true, process: subprocess.Popen | None, seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert process is None or process.poll() is None, "it ended before its signal"
        assert time.monotonic() < ends, "it never came so far"
        time.sleep(0.05)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """What a shell starts in the background inherits that Ctrl-C is ignored, and so would a run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.faults
def test_a_signal_in_training_loses_nothing(tmp_path: Path):
    calls = whole("digits", tmp_path / "whole")
    assert ended(tmp_path, signal.SIGTERM, "training", calls["training"] // 2) == []


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_six_signals_lose_nothing(tmp_path: Path):
    calls = whole("digits", tmp_path / "whole")
    moments = {
        "training": 1,  # before there is a checkpoint
        "validation": calls["validation"] // 2,
        "probing": calls["probing"] - 3,
    }
    found = {
        f"{signal.Signals(signum).name} in {phase}": ended(tmp_path, signum, phase, call)
        for signum in STATUS
        for phase, call in moments.items()
    }
    same = sum(not wrong for wrong in found.values())
    print(f"{same} of {len(found)} signals end as they should and go on bit-identical: {', '.join(found)}")
    assert {moment: wrong for moment, wrong in found.items() if wrong} == {}


@pytest.mark.faults
@pytest.mark.ranks
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("signum", STATUS, ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_two_processes_loses_nothing(tmp_path: Path, signum: int):
    train = [sys.executable, str(TRAIN)]
    begin = [*train, *FIT, *TWO, "--folder"]
    subprocess.run([*begin, "other"], cwd=tmp_path, env=_surroundings(), check=True, capture_output=True)
    process = _started([*begin, "run"], tmp_path)
    _until((tmp_path / "run/checkpoints/last.ckpt").exists, process)
    if signum == signal.SIGINT:  # which a terminal sends to all
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    status = process.wait(60)
    _until(lambda: not _lives(process.pid), None, 30)
    assert _judged(tmp_path, signum, status, tmp_path / "other", train) == []
