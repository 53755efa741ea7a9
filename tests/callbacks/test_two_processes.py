"""Two real processes share the work: the pictures are those of one, and a failure in one hangs nobody."""

import subprocess
import sys
from pathlib import Path

import pytest
import somebody
import torch

SCRIPT = Path(__file__).with_name("two_processes.py")


def run(folder: Path, how: str, processes: int = 2, *, limit: int = 120) -> subprocess.CompletedProcess:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), how, str(processes)]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)


@pytest.mark.ranks
def test_pictures_of_two_processes_are_those_of_one(tmp_path: Path):
    sys.path.insert(0, str(SCRIPT.parent))
    from two_processes import again

    assert "came to the end" in run(tmp_path / "two", "all").stdout
    again(tmp_path / "one", tmp_path / "two" / "weights.pt")
    two, one = somebody.images(tmp_path / "two"), somebody.images(tmp_path / "one")
    last = max(step for _, step in two)
    assert {tag for tag, _ in one} == {tag for tag, step in two if step == last and not tag.endswith("/film")}
    for tag, _ in one:
        if tag != "Embeddings/tsne":  # neighbours at nearly equal distances may change places
            assert torch.equal(one[tag, 0], two[tag, last]), tag
    for tag, values in somebody.scalars(tmp_path / "one").items():
        if tag.startswith("Metrics/"):
            assert somebody.scalars(tmp_path / "two")[tag][-1][1] == pytest.approx(values[-1][1], abs=1e-5)


@pytest.mark.ranks
def test_watching_changes_nothing_in_two_processes(tmp_path: Path):
    for how in ("none", "all"):
        assert "came to the end" in run(tmp_path / how, how).stdout
    alone, watched = (torch.load(tmp_path / how / "weights.pt", weights_only=True) for how in ("none", "all"))
    assert all(torch.equal(alone[key], watched[key]) for key in alone)


@pytest.mark.ranks
@pytest.mark.parametrize("how", ["warn", "unpicklable"])
def test_a_failure_on_one_process_is_told_and_training_goes_on(tmp_path: Path, how: str):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), how, "2"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "came to the end" in done.stdout
    assert done.stderr.count("FailsOnTheSecond failed, training goes on") == 1
    assert "(on process 1)" in done.stderr


@pytest.mark.ranks
def test_a_failure_on_one_process_stops_all_if_asked(tmp_path: Path):
    done = run(tmp_path, "raise")
    assert done.returncode != 0
    assert "came to the end" not in done.stdout
    assert "RuntimeError: FailsOnTheSecond failed: KeyError: 'on the second' (on process 1)" in done.stderr
