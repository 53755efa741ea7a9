"""Progress of long work where there is no terminal: few lines, and none of short work."""

import sys
from collections.abc import Iterator

import pytest
from tqdm.std import tqdm

from fulgurite.probes import progress
from fulgurite.probes.progress import Lines, in_words, progress_bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def passing(clock: list[float], seconds: float, steps: int) -> Iterator[int]:
    """Steps that take so long each."""
    for step in progress_bar(range(steps), "Class images"):
        clock[0] += seconds
        yield step


def test_work_of_many_steps_is_two_lines(clock: list[float], capsys: pytest.CaptureFixture):
    assert list(passing(clock, 0.1, 300)) == list(range(300))
    assert capsys.readouterr().err.splitlines() == [
        "Class images: 30 of 300 steps after 3 s, 27 s to go",
        "Class images: 300 of 300 steps in 30 s",
    ]


def test_hours_of_work_are_a_line_every_ten_minutes(clock: list[float], capsys: pytest.CaptureFixture):
    assert len(list(passing(clock, 10, 720))) == 720
    first, second, *_, last = lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 13
    assert first == "Class images: 1 of 720 steps after 10 s, 2.0 h to go"
    assert second == "Class images: 61 of 720 steps after 10 min, 1.8 h to go"
    assert last == "Class images: 720 of 720 steps in 2.0 h"


def test_short_work_and_work_without_a_label_say_nothing(clock: list[float], capsys: pytest.CaptureFixture):
    assert list(passing(clock, 0.01, 290))
    clock[0] += 100
    assert list(progress_bar(range(5))) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_work_that_ends_early_reports_its_progress(clock: list[float], capsys: pytest.CaptureFixture):
    with progress_bar(label="Attack", total=40, unit="image") as bar:
        clock[0] = 4.0
        bar.update(8)
        bar.set_postfix_str("objective 2.5")
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        "Attack: 8 of 40 images after 4 s, 16 s to go",
        "Attack: 8 of 40 images in 4 s, objective 2.5",
    ]


def test_work_without_a_known_end_says_what_it_counts(clock: list[float], capsys: pytest.CaptureFixture):
    for _ in progress_bar((None for _ in range(2)), "features", unit="batch"):
        clock[0] += 8
    assert capsys.readouterr().err.splitlines() == [
        "features: 1 batch after 8 s",
        "features: 2 batches in 16 s",
    ]


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch):
    assert isinstance(progress_bar(range(2), "Attack"), Lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(progress_bar(range(2), "Attack"), tqdm)


@pytest.mark.parametrize(("seconds", "words"), [(3.4, "3 s"), (89, "89 s"), (100, "2 min"), (5400, "1.5 h")])
def test_times_are_in_the_unit_that_suits_them(seconds: float, words: str):
    assert in_words(seconds) == words
