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
    again(tmp_path / "one", tmp_path / "two" / "kept.ckpt")
    two, one = somebody.images(tmp_path / "two"), somebody.images(tmp_path / "one")
    (last,) = {step for _, step in one}
    assert last == max(step for _, step in two)
    assert {tag for tag, _ in one} == {tag for tag, step in two if step == last and not tag.endswith("/film")}
    # near neighbours may change places; the others draw one look more, or fit to other data
    others = {"Embeddings/tsne", "Drift", "StageProbes"}
    for tag, _ in one:
        if tag not in others:
            assert torch.equal(one[tag, last], two[tag, last]), tag
    numbers, expected = somebody.scalars(tmp_path / "two"), somebody.scalars(tmp_path / "one")
    compared = [tag for tag in expected if tag.startswith(("Metrics/", "Robustness/", "Drift/", "Saliency"))]
    assert len(compared) > 12
    for tag in compared:
        assert numbers[tag][-1][1] == pytest.approx(expected[tag][-1][1], abs=1e-5), tag


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
def test_what_one_process_alone_cannot_check_ends_no_training(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "check", "2"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "came to the end" in done.stdout, done.stderr
    said = "RefusesOnTheSecond failed, training goes on: ValueError: no such thing here (on process 1)"
    assert done.stderr.count(said) == 1
    assert [step for step, _ in somebody.scalars(tmp_path)["RefusesOnTheSecond/second"]] == [0, 2, 4]


@pytest.mark.ranks
def test_what_subjects_have_kept_is_on_all_processes_and_in_the_checkpoint(tmp_path: Path):
    done = run(tmp_path, "memory")
    assert "came to the end" in done.stdout, done.stderr
    kept = torch.load(tmp_path / "kept.ckpt", weights_only=True)["callbacks"][
        "Remembers{'name': 'Remembers'}"
    ]
    names = ["first", "second", "third"]
    assert kept["first"] == dict.fromkeys(names, 0)
    assert kept["last"] == dict.fromkeys(names, 4)
    assert kept["number"] == 2
    # each look reads what the one before has kept, on whatever process
    seen = somebody.scalars(tmp_path)
    assert all([value for _, value in seen[f"Remembers/{name}"]] == [-1, 0, 2] for name in names)


@pytest.mark.ranks
def test_a_failure_on_one_process_stops_all_if_asked(tmp_path: Path):
    done = run(tmp_path, "raise")
    assert done.returncode != 0
    assert "came to the end" not in done.stdout
    assert "RuntimeError: FailsOnTheSecond failed: KeyError: 'on the second' (on process 1)" in done.stderr
