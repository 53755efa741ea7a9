"""Malicious run folders: no code of them runs, and each is one line; no traceback, no file elsewhere."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from hostile_runs import MADE
from PIL import Image

from fulgurite.cli.command import main

SMALL = ["--epochs", "1", "--size", "8", "--batch_size", "512", "--every", "0"]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SECONDS = 60

FINETUNE = ["fit", "finetune", "--path", "images", "--channels", "1", "--size", "8", "--every", "0"]
FINETUNE += ["--epochs", "1", "--workers", "0"]
VERBS = {
    "validate": ["validate", "runs/evil", *QUIET],
    "test": ["test", "runs/evil", *QUIET],
    "probe": ["probe", "runs/evil", *QUIET],
    "predict": ["predict", "runs/evil", "images", "--explain"],
    "resume": ["fit", "digits", "--resume", "runs/evil", "--epochs", "2", *QUIET],
    "finetune": [*FINETUNE, "--backbone", "runs/evil", "--folder", "runs/tuned", *QUIET],
}
NEVER = {"recipe: a number", "knobs: a list", "trainer: a list"}
NEVER |= {name for name in MADE if "a class" in name}
"""What is not a run.json at all."""
LINKS = tuple(name for name in MADE if name.endswith("out of the folder") and ": " not in name)
HARMLESS = {
    "finetune": ("recipe", "trainer", "knobs", "stages", "tested", "data out of the folder", *LINKS),
    "predict": ("recipe", "trainer", "knobs", "tested", "data out of the folder"),
    "validate": ("trainer", "tested"),
    "test": ("trainer", "tested"),
    "probe": ("trainer", "tested"),
    "resume": (),
}
"""What a verb has no use for, by the first words of its name."""
WEIGHTS = {"checkpoints: a step of text", "checkpoints: a negative epoch"}
WEIGHTS.add("checkpoints: all out of the folder")
"""Faults of a training; a network has its weights all the same."""
TRAINING = {"no optimizer", "an optimizer of other weights", "an optimizer of text"}
TRAINING |= {"a callback without a state", "a version of nothing"}
"""Of a checkpoint: what a resumed training alone reads."""


def may_pass(name: str, verb: str) -> bool:
    """Whether the verb has no use for what is wrong in the folder."""
    if name == "weights: a pickle":  # where those that it began with are not read any more
        return True
    if name.removeprefix("checkpoints: ") in TRAINING:
        return verb != "resume"
    if name in WEIGHTS:
        return verb == "finetune" or (verb == "predict" and "out" not in name)
    return name not in NEVER and name.partition(": ")[0] in HARMLESS[verb]


class HungError(BaseException):
    """What takes too long, and no `except` holds."""


def hung(*_: object) -> None:
    raise HungError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A folder to work in, with a good run, images, and code that is not to run."""
    home, before = tmp_path_factory.mktemp("place"), Path.cwd()
    os.chdir(home)
    assert main(["fit", "digits", *SMALL, *QUIET, "--folder", "good"]) == 0
    for name in ("cats", "dogs"):
        (home / "images" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (12, 12), 40 * number).save(home / "images" / name / f"{number}.png")
    Path("payload.py").write_text("open('canary', 'w').write('imported')\nclass X: pass\n")
    Path("elsewhere").mkdir()
    for name in ("pictures", "probe", "test", "predictions"):
        (home / "elsewhere" / name).mkdir()
    yield home
    os.chdir(before)


@pytest.fixture
def evil(place: Path, monkeypatch: pytest.MonkeyPatch):
    """A good run's folder, importable in the worst case."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    shutil.rmtree("runs", ignore_errors=True)
    shutil.copytree("good", "runs/evil")
    for code in ("payload.py", "evil.yaml", "sitecustomize.py"):
        shutil.copy("payload.py", Path("runs/evil") / code)
    before = signal.signal(signal.SIGALRM, hung)
    yield place / "runs" / "evil"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def outside(place: Path) -> dict[str, tuple[int, int]]:
    """Every file but those of the run, with its size and its time."""
    files = {}
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if name not in ("evil", "__pycache__")]
        for name in [*names, *folders]:
            reported = (Path(folder) / name).lstat()
            files[str(Path(folder) / name)] = (
                reported.st_size,
                0 if name in folders else reported.st_mtime_ns,
            )
    return files


def carry_out(words: list[str], capsys: pytest.CaptureFixture) -> tuple[int, str, float]:
    started = time.perf_counter()
    signal.alarm(SECONDS)
    try:
        status = main(words)
    finally:
        signal.alarm(0)
    return status, capsys.readouterr().err, time.perf_counter() - started


def check(name: str, verb: str, capsys: pytest.CaptureFixture, place: Path) -> None:
    shutil.rmtree("runs/tuned", ignore_errors=True)
    before = outside(place)
    known = set(sys.modules)
    status, printed, seconds = carry_out(list(VERBS[verb]), capsys)
    what = f"{name}, {verb}: status {status} after {seconds:.1f} s: {printed[-600:]}"
    assert not Path("canary").exists(), what
    assert not [module for module in set(sys.modules) - known if "payload" in module], what
    assert "Traceback" not in printed, what
    if status == 2:
        lines = [line for line in printed.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, what
        assert printed.splitlines()[-1] == lines[0], what
        assert len(lines[0]) < 2100, what
        assert lines[0].isprintable(), what
        assert outside(place) == before, what
    else:
        assert status in (0, 1), what
        assert may_pass(name, verb), what
        after = outside(place)
        changed = {path for path in after if after[path] != before.get(path)}
        assert all("runs/tuned" in path or path.endswith("/runs") for path in changed), (what, changed)
    assert not list(Path("runs").rglob("*.tmp")), what


QUICK = ("trainer: a class for profiler", "deep lists", "images: text for size", "checkpoints: a pickle")


@pytest.mark.parametrize("name", QUICK)
def test_a_hostile_run_is_one_line(name: str, evil: Path, place: Path, capsys: pytest.CaptureFixture):
    MADE[name](evil)
    for verb in VERBS:
        check(name, verb, capsys, place)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MADE if name not in QUICK])
def test_every_hostile_run_is_one_line_to_every_verb(
    name: str, evil: Path, place: Path, capsys: pytest.CaptureFixture
):
    MADE[name](evil)
    for verb in VERBS:
        check(name, verb, capsys, place)


@pytest.mark.slow
def test_the_good_run_passes_every_verb(evil: Path, place: Path, capsys: pytest.CaptureFixture):
    for verb, words in VERBS.items():
        status, printed, _ = carry_out(list(words), capsys)
        assert status == 0, (verb, printed)
