"""A run that is killed at any moment can be resumed, and ends as the uninterrupted one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.killed import PHASES, QUIET, RUNS, command, differences, moments, whole

TRAIN = Path(__file__).parents[2] / "train.py"


def survives(recipe: str, folder: Path, kill: tuple[str, int]) -> list[str]:
    """What differs from the uninterrupted run in `folder/whole` after a kill at this moment."""
    place = folder / f"{kill[0]}-{kill[1]}"
    place.mkdir()
    status, printed = command(["fit", recipe, *RUNS[recipe], "--folder", "run", *QUIET], place, kill=kill)
    assert status == -signal.SIGKILL, printed
    status, printed = command(["fit", recipe, "--resume", "run", *QUIET], place)
    if status != 0:
        return [f"status {status}: {printed[-500:]}"]
    return differences(folder / "whole" / "run", place / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[pytest.mark.faults] * (name != "digits")) for name in RUNS]
)
def test_a_run_killed_in_any_phase_can_be_resumed(recipe: str, tmp_path: Path):
    """Each phase in one of the recipes; `make faults` kills both in all of them."""
    calls = whole(recipe, tmp_path / "whole")
    for phase in PHASES[list(RUNS).index(recipe) :: len(RUNS)]:
        assert survives(recipe, tmp_path, (phase, calls[phase] // 2)) == [], phase


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("recipe", RUNS)
def test_twenty_kills_at_random_moments_change_nothing(recipe: str, tmp_path: Path):
    chosen = moments(whole(recipe, tmp_path / "whole"), 20, seed=0)
    found = {f"{phase} {call}": survives(recipe, tmp_path, (phase, call)) for phase, call in chosen}
    same = sum(not differs for differs in found.values())
    print(f"{recipe}: {same} of {len(chosen)} kills go on and end bit-identical; at {', '.join(found)}")
    assert {moment: differs for moment, differs in found.items() if differs} == {}


@pytest.mark.faults
@pytest.mark.ranks
@pytest.mark.timeout(3600)
def test_six_kills_of_two_processes_change_nothing(tmp_path: Path):
    two = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    begin = [sys.executable, TRAIN, "fit", "digits", *RUNS["digits"], *two, *QUIET]
    again = [sys.executable, TRAIN, "fit", "digits", *QUIET]
    started = time.monotonic()
    subprocess.run([*begin, "--folder", "whole"], cwd=tmp_path, check=True, capture_output=True)
    lasts, draw, found = time.monotonic() - started, random.Random(0), {}
    for number in range(6):
        run, moment = tmp_path / f"run{number}", draw.uniform(0.4, 0.95) * lasts
        with (tmp_path / f"{number}.txt").open("w") as output:
            process = subprocess.Popen(
                [*begin, "--folder", run.name], cwd=tmp_path, stdout=output, stderr=output
            )
            while not (run / "run.json").exists():
                time.sleep(0.1)
            time.sleep(max(0.0, moment - 0.4 * lasts))
            others = _children(process.pid)
            assert others, "there are no two processes yet, or no more: other work next to this has changed"
            # each of the two in turn
            os.kill([process.pid, *others][number % 2], signal.SIGKILL)
            for left in [process.pid, *others]:
                _wait_for(process, left)
        done = subprocess.run([*again, "--resume", run.name], cwd=tmp_path, capture_output=True, text=True)
        found[f"{moment:.1f} s"] = (
            differences(tmp_path / "whole", run) if done.returncode == 0 else [done.stderr[-500:]]
        )
    same = sum(not differs for differs in found.values())
    print(f"two processes: {same} of 6 kills go on and end bit-identical; at {', '.join(found)}")
    assert {moment: differs for moment, differs in found.items() if differs} == {}


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_for(process: subprocess.Popen, pid: int, *, seconds: float = 60) -> None:
    """See a process end of itself."""
    if pid == process.pid:
        process.wait(seconds)
        return
    ends = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < ends, f"process {pid} outlives the others"
        time.sleep(0.1)
