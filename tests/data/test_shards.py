"""Shards: all images are streamed once, divided among processes, in an order that can be resumed."""

import importlib.util
import json
import os
import pickle
from collections import Counter
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tar_shards import fill, flat, image, made, packed, shades

from fulgurite.callbacks.framework.sample import fetch
from fulgurite.cli.command import main
from fulgurite.data import shard_index
from fulgurite.data.decoding import UnreadableImageError
from fulgurite.data.shard_stream import apportioned
from fulgurite.models.classifier import Classifier

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("webdataset") is None, reason="webdataset is missing"
)


def test_facts_are_known_at_once(path):
    data = made(path)
    assert (data.classes, data.channels, data.size) == (("0", "1"), 3, 8)
    assert data.class_weights.tolist() == [1, 1]
    assert (len(data.train_dataloader()), len(data.val_dataloader())) == (10, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_images_and_their_labels(path, channels):
    data = made(path, channels=channels, augment=True)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batches = list(loader)
        assert len(batches) == len(loader)
        for images, labels in batches:
            assert images.shape == (len(labels), channels, 8, 8)
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
            assert 0 <= images.min() <= images.max() <= 1
            assert [round(float(one.mean()) * 255) % 2 for one in images] == labels.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_each_validation_image_comes_once(path, workers):
    data = made(path, workers=workers)
    assert sorted(flat(shades(data.val_dataloader()))) == list(range(100, 109))
    assert len(list(data.val_dataloader())) == len(data.val_dataloader())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 3, 9])
def test_an_epoch_has_each_training_image_about_once_in_full_batches(path, workers):
    seen = Counter()
    loader = made(path, workers=workers).train_dataloader()
    for _ in range(3):
        batches = shades(loader)
        assert list(map(len, batches)) == [4] * 10
        seen += Counter(flat(batches))
    assert set(seen) == set(range(38))
    assert max(seen.values()) <= 6


def test_without_a_buffer_and_workers_an_epoch_is_whole_shards(path):
    batches = flat(shades(made(path, shuffle=0).train_dataloader()))
    assert sorted(batches[:38]) == list(range(38))
    assert batches[38:] == batches[:2]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_follows_from_seed_and_epoch(path, workers):
    def epochs(seed, begin=0):
        loader = made(path, workers=workers, seed=seed, augment=True).train_dataloader()
        loader.sampler.set_epoch(begin)
        while True:
            yield [images for images, _ in loader]

    def same(one, other):
        return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))

    run = epochs(0)
    first, second = next(run), next(run)
    assert same(first, next(epochs(0)))
    assert same(second, next(epochs(0, begin=1)))
    assert not same(first, second)
    assert not same(first, next(epochs(1)))


def test_processes_share_the_shards(path):
    loaders = []
    for rank in range(2):
        loader = made(path, shuffle=0).train_dataloader()
        loader.stream.ranks, loader.stream.rank, loader.stream.steps = 2, rank, 5
        loaders.append(loader)
    one, other = ({shard.path for shard in loader.stream.own()} for loader in loaders)
    assert len(one) == len(other) == 2
    assert not one & other
    assert [len(list(loader)) for loader in loaders] == [5, 5]


def test_steps_are_apportioned_by_images():
    assert apportioned(10, [10, 10]) == [5, 5]
    assert apportioned(10, [22, 10, 6]) == [6, 3, 1] or apportioned(10, [22, 10, 6]) == [6, 2, 2]
    assert apportioned(3, [1, 1, 1, 1]) == [1, 1, 1, 0]


PATTERNS = {
    "braces": ("train/{000..003}.tar", "val/00{0,1}.tar"),
    "stars": ("train/*.tar", "val/00[01].tar"),
    "folders": ("train", "val"),
}


@pytest.mark.parametrize(("train", "val"), PATTERNS.values(), ids=PATTERNS)
def test_shards_are_named_by_patterns_and_folders(path, train, val):
    data = made(path / train, val=path / val)
    assert [len(data.train_dataloader()), len(data.val_dataloader())] == [10, 3]


def test_classes_have_names_from_a_list_or_from_the_entries(path, tmp_path):
    (path / "classes.json").write_text('["ants", "bees", "wasps"]')
    assert made(path).classes == ("ants", "bees", "wasps")
    (tmp_path / "other.json").write_text('["bees", "ants"]')
    assert made(path, classes=tmp_path / "other.json").classes == ("bees", "ants")
    for part in ("train", "val"):
        fill(tmp_path / "named" / part, (4, 4), first=20 * (part == "val"), labels=("bees", "ants"))
    data = made(tmp_path / "named")
    assert data.classes == ("ants", "bees")
    assert [labels.tolist() for _, labels in data.val_dataloader()] == [[1, 0, 1, 0]] * 2
    assert made(tmp_path / "named", classes=tmp_path / "other.json").classes == ("bees", "ants")


def test_shards_are_counted_once_and_anew_when_they_change(path, monkeypatch):
    counted = []
    count = shard_index._counted
    monkeypatch.setattr(shard_index, "_counted", lambda one: counted.append(one.name) or count(one))
    made(path)
    assert len(counted) == 6
    made(path)
    assert len(counted) == 6
    fill(path / "val", (5, 7), first=100)
    os.utime(path / "val" / "000.tar", ns=(1, 1))
    assert len(made(path).val_dataloader()) == 3
    assert sorted(counted[6:]) == ["000.tar", "001.tar"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"x": [1]}', pickle.dumps(print)], ids=repr)
def test_a_damaged_index_is_made_anew_with_a_line(path, tmp_path, monkeypatch, content):
    made(path)
    for file in (tmp_path / "cache" / "shards").iterdir():
        file.write_bytes(content)
    printed = []
    monkeypatch.setattr(shard_index, "rank_zero_info", printed.append)
    assert made(path).classes == ("0", "1")
    assert "is damaged" in printed[0]


def spoilt(path):
    files = {"a__cls": "0", "a__png": "no image", "b__cls": "1", "b__png": image(7)}
    packed(path / "train" / "004.tar", **files)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_left_out_or_ends_the_run_by_name(path, workers):
    spoilt(path)
    with pytest.raises(
        UnreadableImageError, match=r"train/004\.tar/a\.png cannot be read as an image: Pillow"
    ):
        list(made(path, workers=workers, on_bad_image="raise").train_dataloader())
    with pytest.warns(UserWarning, match=r"train/004\.tar/a\.png cannot be .*; it is left out") as met:
        batches = shades(made(path).train_dataloader())
    assert {str(one.message) for one in met} == {str(met[0].message)}
    assert list(map(len, batches)) == [4] * 10


def test_shards_without_a_readable_image_end_the_run(tmp_path, path):
    packed(tmp_path / "bad" / "0.tar", a__cls="0", a__png="no image", b__cls="1", b__png="none")
    loader = made(tmp_path / "bad", val=path / "val").train_dataloader()
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match=r"^no image of \S*bad/0\.tar can be read$"),
    ):
        list(loader)


def test_nothing_but_images_and_labels_is_read(path, tmp_path, monkeypatch):
    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    content = pickle.dumps(Canary())
    files = {f"a__{ending}": content for ending in ("pyd", "pickle", "pth", "npy", "json")}
    packed(path / "train" / "004.tar", **files, a__cls="0", a__png=image(9))
    assert 9 in flat(shades(made(path, shuffle=0).train_dataloader()))
    assert not (tmp_path / "canary").exists()


def test_probes_read_the_first_images_and_change_nothing(path):
    loader = made(path).val_dataloader()
    before = torch.random.get_rng_state()
    sample = fetch(loader, 6, classes=("0", "1"), device=torch.device("cpu"))
    assert [round(float(one.mean()) * 255) for one in sample.images] == list(range(100, 106))
    assert sample.labels is not None
    assert sample.labels.tolist() == [0, 1] * 3
    assert torch.equal(torch.random.get_rng_state(), before)
    assert loader.sampler.epoch == 0


def trained(path, folder, checkpoint=None):
    pl.seed_everything(0, verbose=False)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
    )
    trainer.fit(
        Classifier(network, classes=2),
        made(path, workers=2, augment=True),
        ckpt_path=checkpoint,
        weights_only=True,
    )
    assert trainer.global_step == 30
    return network[1].weight


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_resumed_run_ends_as_the_uninterrupted_one(path, tmp_path):
    whole = trained(path, tmp_path / "whole")
    resumed = trained(path, tmp_path / "resumed", tmp_path / "whole" / "epoch=0.ckpt")
    assert torch.equal(whole, resumed)


@pytest.mark.usefixtures("brief_class_images")
@pytest.mark.parametrize("every", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_the_command_trains_and_probes_on_shards(path, tmp_path, monkeypatch, every):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULGURITE_RUN", raising=False)
    pattern = ["--path", "data/train/{000..003}.tar", "--val", "data/val"]
    small = [
        "--network",
        "small_vgg",
        "--size",
        "16",
        "--batch_size",
        "8",
        "--epochs",
        "1",
        "--workers",
        "0",
        "--every",
        every,
    ]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    assert main(["fit", "shards", *pattern, *small, *quiet, "--folder", "run"]) == 0
    assert json.loads(Path("run/run.json").read_text())["knobs"]["val"] == "data/val"
    file = Path("one.png")
    file.write_bytes(image(9))
    assert main(["predict", "run", "one.png", "--out", "-"]) == 0
