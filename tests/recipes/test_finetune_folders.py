"""Fine-tuning on folders of every kind, from the command: a bad one is one line, and leaves no run."""

import os
import re
from pathlib import Path

import pytest
from folder_kinds import KINDS, many_links_in_circles, odd_classes, two_classes
from image_kinds import BAD

from fulgurite.cli.command import main

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("default")]
SMALL = [
    "--network",
    "small_vgg",
    "--strategy",
    "scratch",
    "--size",
    "8",
    "--workers",
    "0",
    "--batch_size",
    "4",
]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
REFUSED = [kind for kind, wanted in KINDS.items() if isinstance(wanted, str)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


def fit(*words: str) -> int:
    return main(["fit", "finetune", "--path", "data", *SMALL, *QUIET, *words])


def refused(capsys: pytest.CaptureFixture) -> str:
    assert fit("--on_bad_image", "raise") == 2
    wrong = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Checking")]
    (line,) = [line for line in wrong if line.startswith("error: ")]
    assert wrong[-1] == line
    assert not Path("runs").exists()
    return line


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_a_folder_that_cannot_be_is_a_line(kind, capsys):
    kind(Path("data").absolute())
    refused(capsys)


def test_files_that_are_no_images_are_named_in_a_line(capsys):
    for number, name in enumerate(BAD):
        file = Path("data", ("ants", "bees")[number % 2], name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(BAD[name][0]())
    # as many as are known by their first and last bytes
    line = refused(capsys)
    found = re.search(rf"(\d+) of {len(BAD)} images cannot be read; mend or remove data/ants/", line)
    assert found, line
    assert int(found[1]) > len(BAD) / 2


def test_images_that_cannot_be_read_are_named_and_the_run_continues(capsys):
    two_classes(Path("data"))
    Path("data", "ants", "text.png").write_text("no image")
    with pytest.warns(
        UserWarning, match=r"1 of 11 images cannot be read; .*ants/text\.png \(Pillow finds no"
    ):
        assert fit("--epochs", "1", "--every", "0", "--folder", "run") == 0


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) for kind in (odd_classes, many_links_in_circles)],
    ids=lambda kind: kind.__name__,
)
def test_a_folder_of_odd_names_and_links_is_trained_on(kind):
    kind(Path("data").absolute())
    assert fit("--epochs", "1", "--every", "1", "--folder", "run") == 0
    some = [file for file in Path("data").rglob("*.png") if file.is_file() and not file.is_symlink()][:3]
    assert main(["predict", "run", *map(os.fspath, some), "--explain"]) == 0
    assert len(list(Path("run", "predictions").iterdir())) == 3
    assert {entry.name for entry in Path().iterdir()} == {"data", "run"}
