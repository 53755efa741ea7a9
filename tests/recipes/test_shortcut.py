"""The recipe of a planted shortcut, in short."""

from pathlib import Path

import pytest
import somebody

from fulgurite.cli.command import main
from fulgurite.recipes.shortcut import recipe

SHORT = ["--images", "60", "--held_out", "12", "--size", "16", "--network", "small_cnn", "--epochs", "1"]


@pytest.mark.slow
def test_it_shows_accuracy_with_and_without_and_the_share_on_the_shape(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "shortcut", *SHORT, "--trainer.accelerator", "cpu"]) == 0
    numbers = somebody.scalars(tmp_path / "runs" / "shortcut" / "0")
    for name in ("validation", "without the shortcut", "conflict"):
        assert len(numbers[f"SplitAccuracy/accuracy/{name}"]) == 2
    for method in ("occlusion", "grad_cam", "guided_backprop"):
        assert f"Faithfulness/inside/{method}" in numbers
    pictures = {tag for tag, _ in somebody.images(tmp_path / "runs" / "shortcut" / "0")}
    assert {"Attribution", "Faithfulness", "SplitAccuracy"} <= pictures


def test_without_a_shortcut_there_is_no_conflict():
    probes = {probe.name: probe for probe in recipe(shortcut=0.0, images=60, held_out=12).probes}
    assert list(probes["SplitAccuracy"].data) == ["without the shortcut"]
    assert not recipe(images=60, held_out=12, every=0).probes
    with pytest.raises(ValueError, match="every=-1"):
        recipe(every=-1)
