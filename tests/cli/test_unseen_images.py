"""Two runs are compared on images that neither was trained on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fulgurite.callbacks.framework.image_names import image_names
from fulgurite.cli.loaded_run import LoadedRun
from fulgurite.cli.unseen_images import left_out, unseen_images
from fulgurite.data.digits import Digits
from fulgurite.data.folder import Folder
from fulgurite.data.folder_in_memory import FolderInMemory
from fulgurite.data.image_data_module import ImageData
from fulgurite.models.classifier import Classifier
from fulgurite.models.networks import build
from fulgurite.recipes.recipe import Recipe


def run(data: ImageData, title: str) -> LoadedRun:
    network = build("all_conv", classes=len(data.classes), channels=data.channels)
    return LoadedRun(title, Path(title), Path(), Recipe(Classifier(network, classes=2), data, 1, []))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for place in range(20):
        file = tmp_path / "photos" / "ab"[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * place).save(file)
    return tmp_path / "photos"


def test_digits_of_another_seed_are_left_out_where_they_were_trained_on():
    first, second = Digits(size=8, seed=0), Digits(size=8, seed=1, noise=0)
    found, count = unseen_images(run(first, "one"), run(second, "two"), 5000)
    unseen = [
        place for place, number in enumerate(second._test.tolist()) if number not in {*first._train.tolist()}
    ]
    assert image_names(found) == [str(place) for place in unseen]
    assert count == len(second._test) - len(unseen)
    assert count > 200
    assert (found.images == second._images[second._test[unseen]]).all()
    assert found.part == "test"
    assert len(unseen_images(run(first, "one"), run(second, "two"), 7)[0]) == 7


def test_two_runs_on_one_split_are_compared_on_all_of_it():
    one, two = (run(Digits(size=8, shift=shift), title) for shift, title in ((2, "one"), (0, "two")))
    found, count = unseen_images(one, two, 9)
    assert (len(found), count) == (9, 0)
    assert left_out(one, count, "test") == ""


@pytest.mark.parametrize("kind", [Folder, FolderInMemory])
def test_photographs_are_identified_by_their_files_or_pixels(kind: Callable[..., ImageData], photos: Path):
    one, two = (run(kind(photos, size=8, channels=1, seed=seed), f"run {seed}") for seed in (0, 3))
    found, count = unseen_images(one, two, 100)
    assert 0 < count < 4
    assert len(found) == 4 - count
    trained, _ = zip(*one.recipe.data.train, strict=True)
    values = {round(float(image.amax()), 3) for image in trained}
    assert not values & {round(float(image.amax()), 3) for image in found.images}
    assert found.part == "validation"
    assert (
        left_out(one, count, found.part)
        == f"Left out are {count} other validation images, on which run 0 was trained."
    )


def test_images_that_were_all_trained_on_are_refused(photos: Path, tmp_path: Path):
    few = tmp_path / "few"
    trained = Folder(photos, size=8, channels=1).files["train"]
    for part in ("train", "val"):
        for name, files in trained.items():
            (few / part / name).mkdir(parents=True)
            (few / part / name / "own.png").symlink_to(files[part == "val"])
    one, two = (run(Folder(path, size=8, channels=1), path.name) for path in (photos, few))
    with pytest.raises(
        ValueError, match="photos was trained on all 2 validation images of few; wanted runs with"
    ):
        unseen_images(one, two, 10)
