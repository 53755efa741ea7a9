"""Small images in files, held in memory."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from fulgurite.data.datasets import InMemory
from fulgurite.data.folder_in_memory import FolderInMemory
from fulgurite.recipes import cifar10


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("small")
    for part, count in (("train", 10), ("test", 3)):
        for number, name in enumerate(("cat", "dog")):
            (place / part / name).mkdir(parents=True)
            for k in range(count):
                image = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
                image.putpixel((0, 0), (k, 100 * number, 9))
                image.save(place / part / name / f"{k}.png")
    return place


def test_images_are_held_whole_as_bytes_and_only_those_of_the_training_change(place: Path):
    data = FolderInMemory(place, val_share=0.1, augment="mixup")
    data.setup()
    assert data.mixing == ("mixup",)
    assert data.tested_on == "test"
    assert data.framing == "whole"
    assert [len(part) for part in (data.train, data.val, data.test)] == [18, 2, 6]
    for part in (data.train, data.val, data.test):
        assert isinstance(part, InMemory)
        assert part.images.dtype == torch.uint8
    image, label = data.test[5]
    assert label == 1
    assert (255 * image[:, 0, 0]).round().tolist() == [2, 100, 9]
    assert torch.equal(data.test[0][0], data.test[0][0])
    assert not torch.equal(data.train[0][0], data.train[0][0])


def test_without_test_images_the_validation_images_are_tested(place: Path):
    data = FolderInMemory(place / "train", size=16, augment=False)
    data.setup()
    assert data.test is data.val
    assert data.train[0][0].shape == (3, 16, 16)
    with pytest.raises(ValueError, match="channels=4; wanted 1 or 3"):
        FolderInMemory(place / "train", channels=4)


def test_the_recipe_of_cifar10_takes_files(place: Path):
    made = cifar10.recipe(files=str(place), network="small_cnn", augment="cutmix", every=0)
    assert made.data.classes == ("cat", "dog")
    assert made.data.mixing == ("cutmix",)
    assert made.takes()["framing"] == "whole"
