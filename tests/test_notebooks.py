"""The documentation's notebooks: Jupyter opens them, and they run from top to bottom."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from documentation import DOCS, program
from PIL import Image

SCRIPTS = sorted((DOCS / "notebooks").glob("*.py"))
QUICK = {"EPOCHS": "1", "IMAGES": "16", "STEPS": "4", "SIDE": "64"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_a_notebook_of_prose_and_programs(script: Path, tmp_path: Path):
    file = tmp_path / "notebook.ipynb"
    jupytext.write(jupytext.read(script), file)
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert kinds.count("markdown") >= kinds.count("code") - 1
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, script.name, "exec")


def ran(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> tuple[dict, list]:
    """The names of a notebook that was run in short, and what its cells show."""
    monkeypatch.chdir(folder)
    for key, value in {**QUICK, **settings}.items():
        monkeypatch.setenv(key, value)
    value_of = program("run_notebooks").value_of
    room: dict = {"__name__": "__main__"}
    cells = jupytext.read(DOCS / "notebooks" / f"{name}.py").cells
    shown = [value_of(cell.source, room) for cell in cells if cell.cell_type == "code"]
    pictures = [picture for picture in shown if isinstance(picture, Image.Image)]
    for picture in pictures:
        picture.load()  # which closes its file
    return room, pictures


pytestmark = pytest.mark.filterwarnings("ignore:.*smaller than the logging interval", "ignore:.*bottleneck")


@pytest.mark.slow
def test_a_network_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    short = {"EPOCHS": "3", "IMAGES": "0", "SIDE": "16"}
    room, pictures = ran("watch_a_network_learn", tmp_path, monkeypatch, **short)
    assert room["accuracy"] > 0.6
    assert len(pictures) == 5
    assert min(side for picture in pictures for side in picture.size) > 100
    assert (tmp_path / "watch_a_network_learn" / "digits.pt").stat().st_size > 10_000


@pytest.mark.slow
def test_a_pretrained_network_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_data: Path, capsys: pytest.CaptureFixture
):
    weights = real_data / "squeezenet1_0_imagenet_fp16.safetensors"
    room, pictures = ran(
        "explain_a_pretrained_network", tmp_path, monkeypatch, WEIGHTS=str(weights), SIDE="128"
    )
    assert len(pictures) == 3
    # the cat is one of ImageNet's
    assert room["classes"][room["answers"][0]] in {"tabby", "Egyptian cat", "tiger cat", "lynx"}
    assert "deletion" in capsys.readouterr().out


@pytest.mark.slow
def test_digits_take_the_place_of_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    room, pictures = ran("explain_a_pretrained_network", tmp_path, monkeypatch, WEIGHTS="digits", SIDE="32")
    assert len(pictures) == 3
    assert room["images"].shape == (3, 1, 32, 32)


@pytest.mark.slow
def test_a_robust_network_loses_less_to_an_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    short = {"EPOCHS": "10", "IMAGES": "64", "SIDE": "8", "RADIUS": "0.6"}
    room, pictures = ran("make_and_break_a_robust_network", tmp_path, monkeypatch, **short)
    assert len(pictures) == 4
    accuracy, images, moved = (room[name] for name in ("accuracy", "images", "moved"))
    clean = {name: accuracy(network, images) for name, network in room["networks"].items()}
    lost = {name: clean[name] - accuracy(network, moved[name]) for name, network in room["networks"].items()}
    assert min(clean.values()) > 0.6
    assert 0 < lost["robust"] < lost["standard"]
