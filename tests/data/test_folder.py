"""Folders of images as a data module: splits, classes, batches, and workers."""

import pickle
import zipfile

import pytest
import torch
from class_folders import fill, painted
from PIL import Image
from torch.utils.data import DataLoader

from fulgurite.data.folder import Folder


def ready(path, **knobs):
    data = Folder(path, **{"size": 16, **knobs})
    data.setup()
    return data


@pytest.fixture
def plain(tmp_path):
    return fill(tmp_path / "plain")


@pytest.fixture
def divided(tmp_path):
    for part, images in (("train", 6), ("val", 3), ("test", 2)):
        fill(tmp_path / "divided" / part, images=images)
    return tmp_path / "divided"


def files(data, part):
    return {file for files in data.files[part].values() for file in files}


def test_facts_are_known_at_once(plain):
    data = Folder(plain)
    assert (data.classes, data.channels, data.size) == (("ants", "bees"), 3, 224)
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Folder(plain, channels=1).mean == (0.5,)


def test_class_folders_are_divided_equally_and_completely(plain):
    data = ready(plain, val_share=0.3)
    assert data.train.labels.tolist() == [0] * 7 + [1] * 7
    assert data.val.labels.tolist() == [0] * 3 + [1] * 3
    assert files(data, "train") | files(data, "val") == set(plain.rglob("*.png"))
    assert not files(data, "train") & files(data, "val")
    assert data.test is data.val


def test_the_seed_decides_the_division(plain):
    assert files(Folder(plain, seed=1), "val") == files(Folder(plain, seed=1), "val")
    assert files(Folder(plain, seed=1), "val") != files(Folder(plain, seed=2), "val")


def test_a_division_into_folders_is_kept(divided):
    data = ready(divided)
    assert [len(part) for part in (data.train, data.val, data.test)] == [12, 6, 4]
    assert all(file.is_relative_to(divided / "val") for file in files(data, "val"))


def test_without_a_test_folder_test_is_val(tmp_path):
    for part in ("train", "val"):
        fill(tmp_path / part, images=2)
    data = ready(tmp_path)
    assert data.test is data.val


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_images_and_labels(plain, channels):
    data = ready(plain, channels=channels)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for images, labels in loader:
            assert images.shape == (len(labels), channels, 16, 16)
            assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
            assert images.min() >= 0
            assert images.max() <= 1


def test_one_index_gives_what_the_batch_gives(plain):
    data = ready(plain)
    images, labels = next(iter(data.val_dataloader()))
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        assert torch.equal(data.val[index][0], image)
        assert data.val[index][1] == label
    assert len(list(data.val)) == len(data.val)


def test_only_training_images_are_framed_at_random(tmp_path):
    for name in ("a", "b"):
        for index in range(3):
            path = tmp_path / name / f"{index}.png"
            painted(path)
            Image.linear_gradient("L").save(path)
    data = ready(tmp_path)
    assert not torch.equal(data.train[0][0], data.train[0][0])
    assert torch.equal(data.val[0][0], data.val[0][0])
    still = ready(tmp_path, augment=False)
    assert torch.equal(still.train[0][0], still.train[0][0])


def test_training_never_ends_on_a_single_image(plain):
    data = ready(plain, batch_size=5)
    assert len(data.train) == 16
    assert [len(labels) for _, labels in data.train_dataloader()] == [5, 5, 5]


def test_it_loads_in_other_processes(plain):
    data = ready(plain, workers=1)
    assert torch.equal(torch.cat([labels for _, labels in data.val_dataloader()]), data.val.labels)
    assert len(pickle.loads(pickle.dumps(data.train))) == len(data.train)


def test_a_user_loader_needs_no_options(plain):
    images, _ = next(iter(DataLoader(ready(plain).val, batch_size=2)))
    assert images.shape == (2, 3, 16, 16)


def test_folds_take_turns(plain):
    every = [ready(plain, fold=(number, 5)) for number in range(5)]
    for data in every:
        assert data.val.labels.tolist() == [0, 0, 1, 1]
        assert files(data, "train") | files(data, "val") == set(plain.rglob("*.png"))
        assert not files(data, "train") & files(data, "val")
        assert data.test is data.val
    assert set.union(*(files(data, "val") for data in every)) == set(plain.rglob("*.png"))
    assert files(ready(plain, fold=(0, 5), seed=1), "val") != files(every[0], "val")


def test_folds_are_dealt_from_train_and_val_and_leave_the_test_alone(divided):
    every = [ready(divided, fold=(number, 3)) for number in range(3)]
    for data in every:
        assert files(data, "test") == set((divided / "test").rglob("*.png"))
        assert len(data.test) == 4
        assert data.val.labels.tolist() == [0] * 3 + [1] * 3
        assert len(data.train) == 12
    whole = set((divided / "train").rglob("*.png")) | set((divided / "val").rglob("*.png"))
    assert set.union(*(files(data, "val") for data in every)) == whole


def test_few_to_train_on_leave_the_rest_as_it_was(divided):
    data = ready(divided, per_class=2)
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert files(data, "train") < files(ready(divided, per_class=4), "train") < files(ready(divided), "train")
    assert files(data, "val") == set((divided / "val").rglob("*.png"))
    assert files(ready(divided, per_class=2, seed=1), "train") != files(data, "train")


def test_classes_weigh_inversely_to_their_training_images(tmp_path):
    fill(tmp_path / "train", ["ants"], images=6)
    fill(tmp_path / "train", ["bees"], images=2)
    fill(tmp_path / "val", images=4)
    assert Folder(tmp_path).class_weights.tolist() == pytest.approx([0.5, 1.5])


@pytest.mark.parametrize("augment", [True, False, "none", "light", "standard", "colour", "strong"])
@pytest.mark.parametrize("channels", [1, 3])
def test_training_images_are_changed_as_named(plain, augment, channels):
    data = ready(plain, augment=augment, channels=channels)
    images = torch.stack([image for image, _ in data.train])
    assert images.shape == (16, channels, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize(("old", "name"), [(True, "standard"), (False, "none")])
def test_old_runs_are_augmented_as_they_were(tmp_path, old, name):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for index in range(3):
            Image.linear_gradient("L").save(tmp_path / folder / f"{index}.png")

    def images(augment):
        torch.manual_seed(0)
        return torch.stack([image for image, _ in ready(tmp_path, augment=augment).train])

    assert torch.equal(images(old), images(name))


MODES = [
    ("grey.png", "L", {}),
    ("palette.png", "P", {}),
    ("transparent.png", "RGBA", {}),
    ("cmyk.jpg", "CMYK", {"quality": 95}),
    ("bitmap.png", "1", {}),
    ("animated.gif", "P", {}),
    ("SHOUTED.JPG", "RGB", {}),
    ("palette_with_gaps.png", "P", {"transparency": b"\x00" * 100}),
]


@pytest.mark.parametrize(("name", "mode", "how"), MODES, ids=lambda value: str(value))
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_every_mode_are_taken(tmp_path, name, mode, how, channels):
    fill(tmp_path, images=2)
    painted(tmp_path / "ants" / name, "white", mode=mode, **how)
    data = ready(tmp_path, channels=channels, val_share=0.1)
    seen = [image for part in (data.train, data.val) for image, label in part if label == 0]
    assert len(seen) == 3
    assert any((image > 0.97).all() for image in seen)


def test_sixteen_bit_greys_are_scaled(tmp_path):
    fill(tmp_path, images=2)
    Image.new("I;16", (30, 30), 32768).save(tmp_path / "ants" / "x.png")
    data = ready(tmp_path, augment=False)
    seen = torch.stack([image for part in (data.train, data.val) for image, _ in part])
    assert any(torch.allclose(image, torch.full_like(image, 0.5), atol=0.01) for image in seen)


def test_a_photograph_is_turned_as_the_camera_was_held(tmp_path):
    fill(tmp_path, images=2)
    sky_on_the_left = Image.new("RGB", (40, 40), "black")
    sky_on_the_left.paste("white", (0, 0, 20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    sky_on_the_left.save(tmp_path / "ants" / "turned.jpg", exif=exif)
    data = ready(tmp_path, augment=False)
    seen = [image for part in (data.train, data.val) for image, _ in part]
    assert any(image[:, :6].min() > 0.8 and image[:, -6:].max() < 0.2 for image in seen)


def test_hidden_and_foreign_files_are_passed_over(plain):
    (plain / ".DS_Store").write_bytes(b"x")
    (plain / "ants" / ".DS_Store").write_bytes(b"x")
    (plain / "ants" / "._1.png").write_bytes(b"x")
    (plain / "ants" / "notes.txt").write_text("six legs")
    (plain / ".ipynb_checkpoints").mkdir()
    (plain / "__MACOSX").mkdir()
    data = ready(plain)
    assert data.classes == ("ants", "bees")
    assert len(data.train) + len(data.val) == 20


def test_links_are_followed(plain, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("ants", "bees"):
        (linked / name).symlink_to(plain / name, target_is_directory=True)
    (tmp_path / "link").symlink_to(linked, target_is_directory=True)
    assert len(ready(tmp_path / "link").train) == 16


def test_folders_within_a_class_belong_to_it(plain):
    painted(plain / "ants" / "red" / "1.png")
    assert len(files(Folder(plain), "train") | files(Folder(plain), "val")) == 21


def test_a_class_may_be_called_train(tmp_path):
    assert Folder(fill(tmp_path, ("bus", "train"))).classes == ("bus", "train")


def test_ants_and_bees(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "hymenoptera_short256_q85.zip") as photographs:
        photographs.extractall(tmp_path)
    path = next(tmp_path.rglob("train")).parent
    data = ready(path, size=64, batch_size=32)
    assert data.classes == ("ants", "bees")
    assert (len(data.train), len(data.val)) == (244, 153)
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (32, 3, 64, 64)
    assert set(labels.tolist()) == {0, 1}


def test_files_that_do_not_end_as_images_do_are_counted_in_a_line(plain, caplog):
    first, *_ = sorted(entry for entry in plain.iterdir() if entry.is_dir())
    for name in ("photo.HEIC", "other.heic", "notes.txt", ".hidden.txt"):
        (first / name).write_bytes(b"")
    with caplog.at_level("INFO"):
        Folder(plain, size=8)
        Folder(plain, size=8, verify=False)
    (reported,) = [record.message for record in caplog.records if "passed over" in record.message]
    assert reported.startswith(
        f"passed over in {plain}: 3 files (2 .heic, 1 .txt); images end in .jpg .jpeg .png "
    )
