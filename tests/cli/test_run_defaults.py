"""What commands on a run take from it, where they are not told: the theme of pictures, shown channels."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from fulgurite.cli import evaluate, image_probes
from fulgurite.cli.command import main
from fulgurite.probes.composites import composed
from fulgurite.probes.style import theme_name
from fulgurite.recipes.run import Run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("verb", ["probe", "test"])
@pytest.mark.parametrize(("words", "theme"), [([], "light"), (["--theme", "dark"], "dark")])
def test_pictures_of_a_run_have_its_theme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, words: list[str], theme: str
):
    drawn = []
    monkeypatch.setattr(evaluate, "_run", lambda *_: drawn.append(theme_name()) or 0)
    Run("digits", {"epochs": 3}, {}, theme="light").write(tmp_path / "run")
    assert main([verb, "run", *words]) == 0
    assert drawn == [theme]


@pytest.mark.parametrize(("knobs", "shown"), [({"composite": "infrared"}, [3, 0, 1]), ({}, [0, 1, 2])])
def test_image_commands_show_the_channels_that_the_run_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knobs: dict, shown: list[int]
):
    class Family:
        @staticmethod
        def parse(probe: str, words: list[str]) -> Namespace:
            return Namespace(network=words[0], theme="dark", out=Path("a.png"))

        @staticmethod
        def answer(args: Namespace) -> None:
            found.extend(composed(torch.arange(4.0)[:, None, None]).flatten().tolist())

    found = list[float]()
    monkeypatch.setattr(image_probes, "_module", lambda family: Family)
    Run("folder", {"epochs": 3, **knobs}, {}).write(tmp_path / "run")
    assert image_probes.run("saliency", ["run"]) == 0
    assert found == shown
