"""Shards, patterns and knobs that are refused, each in a sentence."""

import importlib.util
from pathlib import Path

import pytest
from tar_shards import fill, image, made, packed

from fulgurite.data import shards

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("webdataset") is None, reason="webdataset is missing"
)


def empty(path):
    packed(path / "train" / "004.tar")
    return r"train/004\.tar holds no images"


def unlabelled(path):
    packed(path / "train" / "004.tar", a__png=image(1), b__png=image(2), b__cls="1")
    return r"train/004\.tar has no label for a; wanted a\.cls"


def no_tar(path):
    (path / "train" / "004.tar").write_text("no tar" * 999)
    return r"train/004\.tar cannot be read as a tar: "


def cut(path):
    file = path / "train" / "000.tar"
    file.write_bytes(file.read_bytes()[:2700])
    return r"train/000\.tar cannot be read as a tar: "


def label_of_no_class(path):
    (path / "classes.json").write_text('["ants"]')
    fill(path / "val", (2, 2))
    (path / "classes.json").write_text('["ants", "bees"]')
    packed(path / "val" / "000.tar", a__png=image(1), a__cls="7")
    return r"val/000\.tar has the label '7', which is none of the 2 classes"


def no_folders(path):
    (path / "val").rename(path / "other")
    return "data has no folders train and val of shards; or give"


def no_list(path):
    (path / "classes.json").write_text('{"ants": 0}')
    return r"classes\.json is not a list of different names"


def one_class(path):
    for part in ("train", "val"):
        fill(path / part, (3, 3, 3, 3), first=20 * (part == "val"), labels=("ants",))
    return "only 1 class in "


BAD = [empty, unlabelled, no_tar, cut, label_of_no_class, no_folders, no_list, one_class]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_bad_shards_are_refused_by_name(path, bad):
    words = bad(path)
    with pytest.raises(ValueError, match=words) as refused:
        made(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("train/none-{0..3}.tar", r"no shard matches .*none-\{0\.\.3\}\.tar; wanted a folder"),
        ("train/*.zip", "no shard matches"),
        ("train/{000..005}.tar", r"2 of 6 shards are missing: .*004\.tar, .*005\.tar"),
        ("train/{000..9999999999}.tar", "names more than 1000000 shards"),
        ("train/" + "{a,b}" * 30, "names more than 1000000 shards"),
        ("train/{000.tar", "a brace without its other one"),
        ("http://example.org/0.tar", "is not a path"),
        ("pipe:touch canary", "is not a path"),
        ("val", r"val/000\.tar is for training and for validation"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(path, monkeypatch, train, words):
    monkeypatch.chdir(path)
    with pytest.raises(ValueError, match=words):
        made(train, val="val")
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"on_bad_image": "ignore"}, 'on_bad_image is "skip"'),
        ({"shuffle": -1}, "got -1"),
        ({"channels": 2}, "got 2"),
        ({"augment": "stron"}, "nearest: strong"),
    ],
)
def test_a_senseless_knob_is_refused(path, knobs, words):
    with pytest.raises(ValueError, match=words):
        made(path, **knobs)


def test_without_the_package_one_sentence_names_it(path, monkeypatch):
    monkeypatch.setattr(shards.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"^shards need the package webdataset: pip install 'fulgurite\[shards\]'$"
    ):
        made(path)
