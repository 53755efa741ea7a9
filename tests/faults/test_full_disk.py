"""A disk that fills up during a run: one line, a good last checkpoint, and the run can be resumed from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import somebody
from faults.killed import QUIET, RUNS, command, differences, whole
from small_disks import small_disk_at

WRITTEN = ("checkpoint", "training", "pictures", "projector")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 megabytes."""
    with small_disk_at(tmp_path / "disk", 40) as disk:
        yield disk


def wrong(folder: Path, disk: Path, phase: str, call: int) -> list[str]:
    """What is not as it should be where the disk fills up at the nth call in a phase, and is freed after."""
    words = ["fit", "digits", *RUNS["digits"], "--folder", f"disk/{phase}", *QUIET]
    status, printed = command(words, folder, kill=(phase, call), disk=disk)
    run = disk / phase
    found = [] if status == 2 else [f"status {status}: {printed[-500:]}"]
    line = printed.strip().splitlines()[-1]
    how = f"error: there is no space left for disk/{phase}: free some; the run stopped after "
    if not line.startswith(how) or not line.endswith(f" fit digits --resume disk/{phase}"):
        found.append(f"last line: {line}")
    if printed.count("error:") != 1 or "Traceback" in printed:
        found.append(f"printed: {printed[-3000:]}")
    found += [f"half-written: {path}" for path in run.rglob("*.tmp")]
    somebody.checkpoint(run)  # can be read
    (disk / "filler").unlink()
    status, printed = command(["fit", "digits", "--resume", f"disk/{phase}", *QUIET], folder)
    found += [] if status == 0 else [f"resumed: {printed[-500:]}"]
    return found + differences(folder / "whole" / "run", run)


@pytest.mark.slow
def test_a_disk_that_is_full_at_a_checkpoint_loses_nothing(tmp_path: Path, small_disk: Path):
    calls = whole("digits", tmp_path / "whole")
    assert wrong(tmp_path, small_disk, "checkpoint", calls["checkpoint"] - 3) == []


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_four_full_disks_lose_nothing(tmp_path: Path, small_disk: Path):
    calls = whole("digits", tmp_path / "whole")
    found = {phase: wrong(tmp_path, small_disk, phase, calls[phase] * 2 // 3) for phase in WRITTEN}
    same = sum(not differs for differs in found.values())
    print(f"{same} of {len(found)} full disks lose nothing; in {', '.join(found)}")
    assert {phase: differs for phase, differs in found.items() if differs} == {}
