"""A run that is interrupted and resumed ends bit-identical to one that was not, for every recipe."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import somebody
import torch
from PIL import Image
from safetensors.torch import save_file

from fulgurite.cli.command import main
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build
from fulgurite.models.stylizer import Stylizer

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SMALL = {"epochs": 3, "every": 0}
PARTS = {"batch_size": 64, "trainer.limit_train_batches": 3, "trainer.limit_val_batches": 1}
ROBUST = {**SMALL, "steps": 1, "radius": 0.1}
PETS = {**SMALL, "path": "pets", "network": "small_vgg", "size": 32, "batch_size": 4, "workers": 0}
SETS = {**SMALL, "root": "sets", "batch_size": 64, "workers": 0}
FEW = {**SMALL, "size": 8, "per_class": 4, "source_epochs": 1, "every_stage": 1, "batch_size": 8}
RUNS: Mapping[str, tuple[str, dict]] = {
    "digits": ("digits", {**SMALL, "size": 8, "batch_size": 256}),
    "dropout": ("digits", {**SMALL, **PARTS, "size": 32, "network": "torchvision/squeezenet1_1"}),
    "steps": ("digits", {**SMALL, "size": 8, "batch_size": 256, "trainer.max_steps": 12}),
    "madry": ("robust_digits", {**ROBUST, "batch_size": 256, "method": "madry", "awp": 0.01, "warmup": 0.5}),
    "fast": ("robust_digits", {**ROBUST, "batch_size": 256, "method": "fast", "noise": 0.1, "ema": 0.9}),
    "folder": ("folder", {**PETS, "optimizer": "sgd", "augment": "mixup_cutmix"}),
    "workers": ("folder", {**PETS, "workers": 2}),
    "robust_folder": ("robust_folder", {**PETS, "method": "trades", "steps": 1, "ema": 0.9}),
    "cifar10": ("cifar10", {**SETS, "dataset": "MNIST", "network": "strided_cnn"}),
    "robust_cifar10": (
        "robust_cifar10",
        {
            **SETS,
            "dataset": "MNIST",
            "network": "strided_cnn",
            "method": "mart",
            "steps": 1,
            "lr": 0.01,
        },
    ),
    "robust_mnist": ("robust_mnist", {**SETS, "method": "free", "replays": 2}),
    "finetune_digits": ("finetune_digits", {**FEW, "strategy": "gradual", "smoothing": 0.1}),
    "stylize": (
        "stylize",
        {
            **SMALL,
            "path": "pets",
            "size": 32,
            "batch_size": 4,
            "width": 2,
            "style": "style.png",
            "judge": "small_vgg",
            "judge_weights": "vgg.safetensors",
            "style_layers": "conv1",
            "content_layer": "conv1",
        },
    ),
    "shortcut": ("shortcut", {**SMALL, "images": 48, "held_out": 24, "batch_size": 16}),
    "finetune": ("finetune", {**PETS, "weights": "vgg.safetensors", "augment": "strong", "size": 16}),
}
"""Every recipe that trains, by what is special in it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for place, name in enumerate(("cats", "dogs")):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(8):
            pixels = draw.integers(0, 60, (40, 40, 3)) + 120 * place
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "pets" / name / f"{number}.png")
    raw = folder / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in {"train": 200, "t10k": 50}.items():
        images, labels = draw.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        for kind, array in {"images-idx3": images, "labels-idx1": labels}.items():
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())
    Image.fromarray(draw.integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(folder / "style.png")
    save_file(build("small_vgg", classes=7).state_dict(), folder / "vgg.safetensors")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for place in data.iterdir():
        (tmp_path / place.name).symlink_to(place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)


class PowerCutError(Exception):
    pass


def test_every_recipe_that_trains_is_resumed_here():
    places = (Path(__file__).parents[2] / "recipes").glob("*.py")
    training = {place.stem for place in places if "\ndef recipe(" in place.read_text()} - {"stages"}
    training -= {"shards"}  # in tests/data/test_shards.py
    assert training == {recipe for recipe, _ in RUNS.values()}


QUICK = {"digits"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in RUNS]
)
def test_a_run_cut_off_and_resumed_ends_as_the_uninterrupted_one(name: str, monkeypatch: pytest.MonkeyPatch):
    recipe, knobs = RUNS[name]
    words = [word for knob, value in knobs.items() for word in (f"--{knob}", str(value))] + QUIET
    assert main(["fit", recipe, *words, "--folder", "whole"]) == 0
    monkeypatch.delenv("FULGURITE_RUN")

    def cut(self, optimizer):
        if self.trainer.fit_loop.epoch_progress.current.processed == 1:
            raise PowerCutError

    with monkeypatch.context() as patch:
        for model in (Classifier, Stylizer):
            patch.setattr(model, "on_before_optimizer_step", cut)
        with pytest.raises(PowerCutError):
            main(["fit", recipe, *words, "--folder", "cut"])
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    torch.manual_seed(1)
    assert main(["fit", recipe, "--resume", "cut", *QUIET]) == 0
    for which in ("last", "best"):
        whole, resumed = (somebody.checkpoint(Path(folder), which) for folder in ("whole", "cut"))
        assert whole.keys() == resumed.keys()
        for part in whole:
            assert somebody.same(whole[part], resumed[part]), (which, part)
    whole, resumed = (somebody.scalars(Path(folder)) for folder in ("whole", "cut"))
    assert whole == resumed
