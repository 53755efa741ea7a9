"""Two real processes share the work: pictures are those of one, and a failure in one blocks none."""

import sys
from pathlib import Path

import pytest
import somebody
import torch
from processes import two_of

COMPARED = (
    "Metrics/",
    "Robustness/",
    "Corruptions/",
    "MinimalDistances/",
    "Drift/",
    "Saliency",
    "Dreams/",
    "Features/",
    "Fooling/",
    "Inversions/",
    "SilentUnits/",
    "Patches/",
    "Neighbours/",
    "Health/",
    "Invariance/",
    "Concepts/",
    "SplitAccuracy/",
)
SCRIPT = Path(__file__).with_name("two_processes.py")
# the unwatched first: nothing that a probe leaves behind in a process may reach it
WAYS = ("none", "all", "warn", "unpicklable", "check", "memory", "short", "raise")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def reported(place: Path) -> dict[str, str]:
    """The output of each training that ends, and of the last, which does not."""
    done = two_of(SCRIPT, place, *WAYS, warn="always")
    assert done.returncode != 0  # of the last
    printed, rest = {}, done.stderr
    for way in WAYS[:-1]:
        printed[way], end, rest = rest.partition(f"{way} came to the end\n")
        assert end, (way, done.stderr)
    return {**printed, WAYS[-1]: rest}


@pytest.mark.slow
@pytest.mark.ranks
def test_pictures_of_two_processes_are_those_of_one(reported: dict[str, str], place: Path, tmp_path: Path):
    sys.path.insert(0, str(SCRIPT.parent))
    from two_processes import again

    again(tmp_path, place / "all" / "kept.ckpt")
    two, one = somebody.images(place / "all"), somebody.images(tmp_path)
    (last,) = {step for _, step in one}
    assert last == max(step for _, step in two)
    # it is of training images, of which one process alone has none
    shown = {tag for tag, step in two if step == last and not tag.endswith("/film")} - {"TrainingInfluence"}
    assert {tag for tag, _ in one} == shown
    # near neighbours may change places; the others draw one look more, or fit to other data
    others = {
        "Embeddings/tsne",
        "ImageGrid/map",
        "ImageGrid/grid",
        "Drift",
        "StageProbes",
        "Equivariance",
        "Health",
        "Invariance",
        "SilentUnits",
        "Faithfulness",
        "SplitAccuracy",
        "MinimalDistances/curve",
    }
    for tag, _ in one:
        if tag not in others:
            assert torch.equal(one[tag, last], two[tag, last]), tag
    numbers, expected = somebody.scalars(place / "all"), somebody.scalars(tmp_path)
    # once more from the checkpoint, the last look is that of the same network
    compared = [tag for tag in expected if tag.startswith(COMPARED) and "the previous time" not in tag]
    assert len(compared) > 12
    for tag in compared:
        assert numbers[tag][-1][1] == pytest.approx(expected[tag][-1][1], abs=1e-5), tag


@pytest.mark.slow
@pytest.mark.ranks
def test_watching_changes_nothing_in_two_processes(reported: dict[str, str], place: Path):
    alone, watched = (torch.load(place / way / "weights.pt", weights_only=True) for way in ("none", "all"))
    assert all(torch.equal(alone[key], watched[key]) for key in alone)


@pytest.mark.slow
@pytest.mark.ranks
@pytest.mark.parametrize("way", ["warn", "unpicklable"])
def test_a_failure_on_one_process_is_reported_and_training_continues(reported: dict[str, str], way: str):
    assert reported[way].count("FailsOnTheSecond failed, training goes on") == 1
    assert "(on process 1)" in reported[way]


@pytest.mark.slow
@pytest.mark.ranks
def test_what_one_process_alone_cannot_check_ends_no_training(reported: dict[str, str], place: Path):
    printed = "RefusesOnTheSecond failed, training goes on: ValueError: no such thing here (on process 1)"
    assert reported["check"].count(printed) == 1
    assert [step for step, _ in somebody.scalars(place / "check")["RefusesOnTheSecond/second"]] == [0, 2, 4]


@pytest.mark.slow
@pytest.mark.ranks
def test_what_subjects_have_kept_is_on_all_processes_and_in_the_checkpoint(
    reported: dict[str, str], place: Path
):
    kept = torch.load(place / "memory" / "kept.ckpt", weights_only=True)["callbacks"][
        "Remembers{'name': 'Remembers'}"
    ]
    names = ["first", "second", "third"]
    assert kept["first"] == dict.fromkeys(names, 0)
    assert kept["last"] == dict.fromkeys(names, 4)
    assert kept["number"] == 2
    # each look reads what the one before has kept, on whatever process
    seen = somebody.scalars(place / "memory")
    assert all([value for _, value in seen[f"Remembers/{name}"]] == [-1, 0, 2] for name in names)


@pytest.mark.slow
@pytest.mark.ranks
def test_a_failure_on_one_process_can_stop_all(reported: dict[str, str], place: Path):
    assert "came to the end" not in reported["raise"]
    assert (
        "RuntimeError: FailsOnTheSecond failed: KeyError: 'on the second' (on process 1)" in reported["raise"]
    )
    assert not (place / "raise" / "weights.pt").exists()


@pytest.mark.slow
@pytest.mark.ranks
def test_processes_agree_on_what_a_short_training_can_afford(reported: dict[str, str], place: Path):
    """Each process has another clock; if they disagreed, one would wait for the other."""
    assert "training takes about 2.0 s, longer than estimated" in reported["short"]
    assert "as the training is short" in reported["short"]
    logged = {tag for tag in somebody.scalars(place / "short") if tag.startswith("Takes")}
    assert {f"Takes{probe}/s{subject}" for probe in range(3) for subject in range(8)} == logged
