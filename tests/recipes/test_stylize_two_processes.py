"""`fit stylize` in two processes: the same training as in one, each picture once, and resuming."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pytest
import somebody
import torch
from PIL import Image
from processes import two_of
from safetensors.torch import save_file
from torch.testing import assert_close

from fulgurite.cli.command import main
from fulgurite.models.networks import build
from fulgurite.models.stylizer import Stylizer
from fulgurite.models.stylizer_networks import stylizer_of
from fulgurite.models.weights import read

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
CPU = [*QUIET, "--trainer.accelerator", "cpu"]
TWO = [*CPU, "--trainer.devices", "2", "--trainer.strategy", "ddp"]


class PowerCutError(Exception):
    pass


def words(folder: Path, run: str, batch: int) -> list[str]:
    knobs = {
        "path": folder / "photos",
        "style": folder / "photos" / "0.png",
        "judge": "small_vgg",
        "judge_weights": folder / "judge.safetensors",
        "style_layers": "conv1",
        "content_layer": "conv1",
        "size": 32,
        "width": 2,
        "val_share": 0.2,
        "epochs": 2,
        "batch_size": batch,
    }
    asked = [word for knob, value in knobs.items() for word in (f"--{knob}", str(value))]
    return ["fit", "stylize", *asked, "--folder", str(folder / run)]


def train(folder: Path) -> None:
    """An uninterrupted run, one that ends in its second epoch, and the rest of that."""

    def cut(model: Stylizer, _) -> None:
        if model.current_epoch == 1:
            raise PowerCutError

    assert main([*words(folder, "two", 2), *TWO]) == 0
    Stylizer.on_before_optimizer_step = cut
    os.environ.pop("FULGURITE_RUN", None)
    with pytest.raises(PowerCutError):
        main([*words(folder, "cut", 2), *TWO])
    del Stylizer.on_before_optimizer_step
    os.environ.pop("FULGURITE_RUN", None)
    assert main(["fit", "stylize", "--resume", str(folder / "cut"), *TWO]) == 0


@pytest.mark.slow
@pytest.mark.ranks
def test_two_processes_learn_what_one_does_show_each_picture_once_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(10):
        pixels = draw.integers(0, 256, (36, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    save_file(build("small_vgg", classes=4, channels=3).state_dict(), tmp_path / "judge.safetensors")
    done = two_of(__file__, tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    assert main([*words(tmp_path, "one", 4), *CPU]) == 0
    two, cut = (somebody.checkpoint(tmp_path / run) for run in ("two", "cut"))
    assert somebody.same(two["state_dict"], cut["state_dict"])
    # not the weights: what is added before a normalisation has no gradient but for rounding
    last = [stylizer_of(read(tmp_path / run / "checkpoints" / "last.ckpt")) for run in ("one", "two")]
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(last[1](image), last[0](image), rtol=0, atol=1e-4)
    alone, together = (somebody.scalars(tmp_path / run) for run in ("one", "two"))
    for tag in ("val/loss", "val/style loss", "val/content loss"):
        found, expected = ([value for _, value in own[tag]] for own in (together, alone))
        assert found == pytest.approx(expected, abs=1e-3), tag
    resumed = somebody.scalars(tmp_path / "cut")
    assert together.keys() == resumed.keys()
    assert all(together[tag] == resumed[tag] for tag in together if not tag.startswith("seconds/"))
    pictures = [somebody.images(tmp_path / run).keys() for run in ("one", "two")]
    assert pictures[0] == pictures[1]
    assert {tag for tag, _ in pictures[1]} >= {"Stylized"}
    writers = {events.name.split(".")[-2] for events in (tmp_path / "two").glob("events*")}
    assert len(writers) == 1  # the number of a process


if __name__ == "__main__":
    train(Path(sys.argv[1]))
