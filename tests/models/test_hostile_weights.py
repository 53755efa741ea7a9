"""Weights files that are broken or malicious, at each function that reads one."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main as command
from fulgurite.models.networks import build, classes_and_channels
from fulgurite.models.weights import read
from tests.models.hostile_weights import BROKEN, CANARY, FILES, good, made

NO_FILE = "no file of weights at"


def _ring(path: Path) -> None:
    path.symlink_to(path)


def _sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**42)


PLACES: dict[str, tuple[Any, str]] = {
    "missing": (lambda path: None, NO_FILE),
    "a folder": (Path.mkdir, NO_FILE),
    "a pipe": (os.mkfifo, NO_FILE),
    "a link to itself": (_ring, NO_FILE),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), NO_FILE),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), NO_FILE),
    "a name of 300 letters": (None, NO_FILE),
    "4 TB of nothing": (_sparse_file, BROKEN),
    "a link to good ones": (
        lambda path: (
            save_file(good(), path.with_name("real.safetensors")) or path.symlink_to("real.safetensors")
        ),
        "",
    ),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for label in ("ants", "bees", "cats", "dogs"):
        (folder / label).mkdir()
        for place in range(4):
            Image.new("RGB", (32, 32), (60 * place, 0, 0)).save(folder / label / f"{place}.png")
    return folder


@pytest.fixture
def watch(tmp_path, monkeypatch):
    """Folders for the file and for what may not be written, and what is written there."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv(CANARY, str(elsewhere / "canary"))
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    yield here
    assert not list(elsewhere.iterdir())


def at_the_doors(path: Path, printed: str, photos: Path, capsys) -> None:
    before = sorted(path.parent.iterdir())
    if not printed:
        network = build("small_cnn", classes=4, channels=3, weights=path)
        own, expected = network.state_dict(), good()
        assert all(torch.allclose(own[name], expected[name].to(own[name]), atol=0.01) for name in own)
        assert classes_and_channels("small_cnn", path) == (4, 3)
    else:
        for ask in (
            lambda: build("small_cnn", classes=4, channels=3, weights=path),
            lambda: (
                classes_and_channels("small_cnn", path),
                build("small_cnn", classes=4, channels=3, weights=path),
            ),
            lambda: (read(path), build("small_cnn", classes=4, channels=3, weights=path)),
        ):
            with pytest.raises(ValueError, match=printed) as reported:
                ask()
            one_sentence(str(reported.value))
        given = ["--network", "small_cnn", "--weights", str(path)]
        capsys.readouterr()
        out = path.parent / "out.png"
        assert command(["gradient", str(photos / "ants/0.png"), *given, "--out", str(out)]) == 2
        one_sentence(err := capsys.readouterr().err)
        assert re.search(printed, err)
        runs = path.parent / "runs"
        assert command(["fit", "folder", "--path", str(photos), *given, "--folder", str(runs)]) == 2
        one_sentence(err := capsys.readouterr().err)
        assert re.search(printed, err)
    assert sorted(path.parent.iterdir()) == before


def one_sentence(reported: str) -> None:
    assert reported.strip().count("\n") == 0, reported
    assert len(reported) < 1000
    assert reported.isprintable() or reported[:-1].isprintable()
    assert "Traceback" not in reported


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_in_a_sentence_and_does_nothing(name, watch, photos, capsys):
    at_the_doors(made(name, watch), FILES[name][2], photos, capsys)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", PLACES)
def test_a_hostile_place_is_refused_in_a_sentence_and_does_nothing(name, watch, photos, capsys):
    make, printed = PLACES[name]
    path = watch / ("x" * 300 if make is None else "weights.pt" if printed else "weights.safetensors")
    if make is not None:
        make(path)
    at_the_doors(path, printed, photos, capsys)


def test_there_are_sixty_of_them():
    assert len(FILES) + len(PLACES) >= 60


def test_the_payloads_would_run_where_a_pickle_is_trusted(tmp_path, monkeypatch):
    for name in ("os.system", "exec", "os.mkdir", "subprocess"):
        monkeypatch.setenv(CANARY, str(tmp_path / name))
        path = made(f"{name}, protocol 2", tmp_path)
        torch.serialization.pickle.loads(path.read_bytes())
        assert (tmp_path / name).exists()
