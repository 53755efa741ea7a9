"""Eight hundred typing errors: each option of each verb with invalid values."""

import inspect
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import pytest
from PIL import Image

from fulgurite.cli import advise, known_recipes
from fulgurite.cli.command import main
from fulgurite.cli.trainer_options import OWNED
from fulgurite.recipes import finetune_digits, robustness_report, stages

VALUES = [
    "",
    " ",
    "-1",
    "0",
    "0.5",
    "1e400",
    "nan",
    "-inf",
    "99999999999999999999999",
    "null",
    "true",
    "[]",
    "[1, [2]]",
    "{}",
    '{"class_path": "payload.X"}',
    "payload.X",
    "☃\u202e\x1b[2J",
    "\udcff",
    "../../..",
    "/dev/zero",
    "images",
    "!!python/object/apply:os.abort []",
    "&a [*a, *a]",
    "x" * 5000,
]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SIZE = ["--size=8", "--network=small_vgg"]
IMAGES = ["--path=images", "--workers=0"]
BASE = {
    "digits": SIZE,
    "robust_digits": SIZE,
    "robust_mnist": ["--network=small_cnn"],
    "cifar10": ["--network=small_vgg"],
    "robust_cifar10": ["--network=small_vgg"],
    "folder": [*IMAGES, *SIZE],
    "robust_folder": [*IMAGES, *SIZE],
    "finetune": [*IMAGES, *SIZE, "--strategy=scratch"],
    "finetune_digits": SIZE,
    "stages": ["--size=8", "--cache=null"],
}
LOOKS = {
    "validate": ["checkpoint"],
    "probe": ["checkpoint"],
    "test": ["checkpoint", "radius", "threat", "images", "ensemble", "minimal"],
    "predict": ["checkpoint", "top", "out", "batch_size"],
}


def cases() -> Iterator[list[str]]:
    """A command of each option, with some of all values in turn; those of looking at a run with all."""
    turn = itertools.cycle(VALUES)
    for name, _ in itertools.product(inspect.signature(pl.Trainer).parameters, range(7)):
        yield ["fit", "digits", *SIZE, *QUIET, f"--trainer.{name}={next(turn)}"]
    for recipe, base in BASE.items():
        knobs = inspect.signature(known_recipes.recipe_of(recipe)).parameters
        for knob, _ in itertools.product([*knobs, "folder", "resume"], range(2)):
            yield ["fit", recipe, *base, f"--{knob}={next(turn)}"]
    for knob, _ in itertools.product(inspect.signature(advise.measure).parameters, range(2)):
        yield ["advise", "folder", *IMAGES, *SIZE, f"--{knob}={next(turn)}"]
    for verb, options in LOOKS.items():
        paths = ["images"] if verb == "predict" else QUIET
        for option, value in itertools.product(options, VALUES):
            yield [verb, "good", *paths, f"--{option}={value}"]
    for verb, value in itertools.product(("fit", "validate", "predict", "advise", "probe"), VALUES):
        yield [verb, value]
    for value in VALUES:
        yield [value]


class HungError(BaseException):
    """What takes too long, and no `except` holds."""


class BegunError(ValueError):
    """The options were good enough for training to begin."""


def hung(*_: object) -> None:
    raise HungError


def begun(*_: object, **__: object) -> None:
    raise BegunError("training begins")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home, before = tmp_path_factory.mktemp("place"), Path.cwd()
    os.chdir(home)
    words = ["--epochs=1", "--batch_size=512", "--every=0", "--folder=good"]
    assert main(["fit", "digits", *SIZE, *QUIET, *words]) == 0
    for name in ("cats", "dogs"):
        (home / "images" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (12, 12), (40 * number, 9, 9)).save(home / "images" / name / f"{number}.png")
    Path("payload.py").write_text("open('canary', 'w').write('imported')\nclass X: pass\n")
    yield home
    os.chdir(before)


@pytest.fixture
def untrained(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything up to where training or judging begins."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    for verb in ("fit", "validate", "test"):
        monkeypatch.setattr(pl.Trainer, verb, begun)
    monkeypatch.setattr(robustness_report, "report_robustness", begun)
    monkeypatch.setattr(stages, "found", begun)
    monkeypatch.setattr(advise, "_measured", begun)
    monkeypatch.setattr(finetune_digits, "_taught", lambda network, data, *, epochs: network)
    before = signal.signal(signal.SIGALRM, hung)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def listing(place: Path) -> set[str]:
    """Every file; a requested table is allowed."""
    return {str(path) for path in place.rglob("*") if path.suffix not in (".pyc", ".csv")}


def tell(words: list[str], place: Path, capsys: pytest.CaptureFixture) -> str:
    """What is wrong with how a command ends; nothing if it ends as it should."""
    os.environ.pop("FULGURITE_RUN", None)
    before, problem = listing(place), ""
    signal.alarm(60)
    try:
        status = main(words)
    except SystemExit as end:  # of --help
        status = end.code
    except HungError:
        return "hangs"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
    printed = capsys.readouterr().err
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    if status == 2 and (len(errors) != 1 or not errors[0].isprintable()):
        problem = f"{len(errors)} errors: {printed[-300:]!r}"
    if status not in (0, 2):
        problem = f"status {status}: {printed[-300:]!r}"
    if new := listing(place) ^ before:
        problem += f"; files {sorted(new)[:4]}"
    if (place / "canary").exists():
        problem += "; code ran"
    return problem


def wrongs(chosen: list[list[str]], place: Path, capsys: pytest.CaptureFixture) -> list[str]:
    found = ((words, tell(words, place, capsys)) for words in chosen)
    return [f"{' '.join(words)[:200]!a}: {problem}" for words, problem in found if problem]


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
def test_one_in_twenty_slips_is_one_line_and_leaves_nothing(place: Path, capsys: pytest.CaptureFixture):
    assert not (reported := wrongs([*cases()][::20], place, capsys)), "\n".join(reported)


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("start", range(1, 20))
def test_all_other_slips_are_one_line_and_leave_nothing(
    start: int, place: Path, capsys: pytest.CaptureFixture
):
    every = [*cases()]
    assert len(every) > 800
    assert {word.split("=")[0] for words in every for word in words} >= {f"--trainer.{own}" for own in OWNED}
    assert not (reported := wrongs(every[start::20], place, capsys)), "\n".join(reported)


@pytest.mark.usefixtures("untrained")
def test_a_folder_whose_name_is_no_text_is_named_in_text(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        assert main(["fit", "digits", *SIZE, "--every=0", "--folder=\udcff"]) == 2
    assert r"digits into \xff" in caplog.text
    caplog.text.encode()
