"""Folders that cannot be trained on, and their error messages."""

import zipfile

import numpy as np
import pytest
from class_folders import fill, painted
from PIL import Image

from fulgurite.data.folder import Folder


@pytest.fixture
def plain(tmp_path):
    return fill(tmp_path / "plain")


def missing(path):
    return path / "nowhere", "no folder .*nowhere"


def archive(path):
    with zipfile.ZipFile(path / "photos.zip", "w"):
        return path / "photos.zip", "photos.zip is a file, .*unpack"


def nothing(path):
    return path, "has no class folders"


def loose_images(path):
    painted(path / "1.png")
    return path, "loose images but no class folders"


def no_images(path):
    (path / "ants").mkdir()
    (path / "bees").mkdir()
    return path, "no images in any folder"


def arrays_alone(path):
    for name in ("ants", "bees"):
        (path / name).mkdir(parents=True)
        np.save(path / name / "1.npy", np.zeros((4, 8, 8), np.float32))
    return path, "no images in any folder .*; .npy files are read with channels=2, or 4 to 13, or by a loader"


def empty_class(path):
    (fill(path) / "wasps").mkdir()
    return path, "no images in .*wasps"


def one_class(path):
    return fill(path, ["ants"]), "only one class in .*ants; .*add a second"


def one_folder_too_high(path):
    fill(path / "photos")
    return path, "was .*photos meant"


def two_folders_too_high(path):
    for name in ("insects", "birds"):
        for part in ("train", "val"):
            fill(path / name / part)
    return path, "holds data sets, with train/ and val/ .*: was .*/birds or .*/insects meant"


def a_data_set_among_classes(path):
    fill(path)
    fill(path / "more" / "train")
    fill(path / "more" / "test")
    return path, "holds data sets, .*: was .*/more meant"


def different_classes(path):
    fill(path / "train", ("ants", "bees"))
    fill(path / "val", ("ants", "wasps"))
    return path, r"bees \(only in train\), wasps \(only in val\)"


def different_classes_in_test(path):
    fill(path / "train")
    fill(path / "val")
    fill(path / "test", ("ants", "bees", "moths"))
    return path, r"moths \(only in test\)"


def train_without_val(path):
    fill(path / "train")
    return path, "has train but no val"


def not_an_image(path):
    (fill(path) / "ants" / "sham.jpg").write_text("not an image")
    return path, r"1 of 21 images .*sham\.jpg"


def truncated(path):
    for ending in ("jpg", "png"):
        noise = Image.effect_noise((200, 200), 80)
        fill(path)
        noise.save(path / "bees" / f"cut.{ending}")
        whole = (path / "bees" / f"cut.{ending}").read_bytes()
        (path / "bees" / f"cut.{ending}").write_bytes(whole[: len(whole) // 2])
    return path, r"2 of 22 .*cut\.jpg .*cut\.png"


def many_broken(path):
    fill(path)
    for index in range(8):
        (path / "ants" / f"{index}.png").write_bytes(b"")
    return path, r"8 of 20 .*0\.png.*4\.png.* and 3 more"


def class_of_one(path):
    fill(path)
    painted(path / "wasps" / "1.png")
    return path, "too few images .*wasps"


BAD = [
    missing,
    archive,
    nothing,
    loose_images,
    no_images,
    arrays_alone,
    empty_class,
    one_class,
    one_folder_too_high,
    two_folders_too_high,
    a_data_set_among_classes,
    different_classes,
    different_classes_in_test,
    train_without_val,
    not_an_image,
    truncated,
    many_broken,
    class_of_one,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_a_bad_folder_is_refused_by_name(tmp_path, bad):
    path, words = bad(tmp_path)
    with pytest.raises(ValueError, match=words):
        Folder(path, on_bad_image="raise")


def test_the_search_for_broken_images_can_be_switched_off(tmp_path):
    path, _ = not_an_image(tmp_path)
    assert Folder(path, verify=False).classes == ("ants", "bees")


def test_subfolders_of_a_class_may_be_called_train_and_val(tmp_path):
    for name in ("ants", "bees"):
        for part in ("train", "val"):
            painted(tmp_path / name / part / "1.png", 90)
    data = Folder(tmp_path)
    assert data.classes == ("ants", "bees")


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"val_share": 1.0}, "val_share"),
        ({"channels": 14}, "got 14"),
        ({"size": 0}, "got 0"),
        ({"augment": "stron"}, "no augmentation 'stron' .*nearest: strong"),
        ({"fold": (0, 1)}, "2 folds or more"),
        ({"fold": (0, 11)}, "each of 11 folds .*10 of 'ants', 10 of 'bees'"),
        ({"per_class": 9}, "wanted 9 .*8 of 'ants', 8 of 'bees'"),
        ({"per_class": 0}, "at least 1; got 0"),
    ],
)
def test_a_senseless_knob_is_refused(plain, knobs, words):
    with pytest.raises(ValueError, match=words):
        Folder(plain, **knobs)
