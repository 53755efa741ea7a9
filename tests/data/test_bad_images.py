"""Images that cannot be read: named, replaced by others of their class, in the same way in every process."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from fulgurite.data.decoding import UnreadableImageError
from fulgurite.data.folder import Folder
from fulgurite.data.samplers import EpochSampler

SHADES = {"ants": 0, "bees": 120}


def bitten(file):
    """Damaged within, which first and last bytes do not show."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path / "cache"))
    for part in ("train", "val"):
        for name, shade in SHADES.items():
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(6):
                pixels = np.full((40, 40), shade + 10 * index, np.uint8)
                pixels[0] = np.random.default_rng(index).integers(
                    0, 256, 40
                )  # so that there is what to damage
                Image.fromarray(pixels).save(tmp_path / part / name / f"{index}.png")
    return tmp_path


def ready(path, **knobs):
    data = Folder(path, **{"size": 16, "augment": False, "batch_size": 4, **knobs})
    data.setup()
    return data


def shades(part):
    return [round(float(image.median()) * 255) for image, _ in part]


def test_the_next_of_the_class_takes_the_place_of_a_bad_image(photos):
    for place in (1, 2, 5):
        bitten(photos / "train" / "ants" / f"{place}.png")
    data = ready(photos)
    assert data._bad == {}
    with pytest.warns(UserWarning, match=r"ants/[125]\.png cannot be read as an image: .*takes its place"):
        assert shades(data.train) == [0, 30, 30, 30, 40, 0, 120, 130, 140, 150, 160, 170]
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6


def test_each_bad_image_is_named_once_when_read_and_at_every_later_start(photos):
    bitten(photos / "train" / "bees" / "3.png")
    data = ready(photos)
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        first = shades(data.train)
        assert shades(data.train) == first
    assert [str(one.message).split(" ")[0] for one in met] == [str(photos / "train" / "bees" / "3.png")]
    with pytest.warns(
        UserWarning, match=r"^1 of 24 images cannot be read; .*bees/3\.png .*take their places"
    ):
        known = ready(photos)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shades(known.train) == first


@pytest.mark.parametrize("workers", [0, 2])
def test_raise_ends_the_run_by_name_in_the_step_and_at_the_next_start(photos, workers):
    bitten(photos / "train" / "bees" / "3.png")
    data = ready(photos, on_bad_image="raise", workers=workers)
    with pytest.raises(
        UnreadableImageError, match=r"^\S*train/bees/3\.png cannot be read as an image: [^\n]+$"
    ):
        list(data.train_dataloader())
    with pytest.raises(ValueError, match=r"1 of 24 images cannot be read; .*bees/3\.png"):
        Folder(photos, on_bad_image="raise")


@pytest.mark.filterwarnings("ignore:.*another image of its class takes its place")
@pytest.mark.filterwarnings("ignore:.*others of their classes take their places")
def test_the_steps_depend_on_the_files_alone(photos):
    """The replacement depends neither on the manifest, nor on workers, nor on the number of processes."""
    for name, place in (("ants", 1), ("ants", 2), ("bees", 5)):
        bitten(photos / "train" / name / f"{place}.png")
    (photos / "train" / "bees" / "0.png").write_text("no image")
    batches = []
    for workers in (0, 2, 0):  # the manifest knows of one image, then of all
        data = ready(photos, augment=True, workers=workers, seed=3)
        loader = data.train_dataloader()
        batches.append([[images for images, _ in loader] for _ in range(2)])
    for epoch in range(2):
        for one, other, third in zip(*(run[epoch] for run in batches), strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one, third)
    resumed = ready(photos, augment=True, seed=3).train_dataloader()
    resumed.sampler.set_epoch(1)
    for before, after in zip(batches[0][1], (images for images, _ in resumed), strict=True):
        assert torch.equal(before, after)
    # two processes see in each step, together, what one sees
    halves = []
    for rank in range(2):
        sampler = EpochSampler(data.train, seed=3, ranks=2, rank=rank)
        halves.append([data.train[index][0] for index in sampler])
    together = torch.stack([image for pair in zip(*halves, strict=True) for image in pair])
    assert torch.equal(together, torch.cat(batches[0][0]))


def test_a_class_without_a_readable_image_ends_the_run(photos):
    for place in range(6):
        bitten(photos / "val" / "ants" / f"{place}.png")
    data = ready(photos)
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(ValueError, match=r"^no image of the class ants can be read$"),
    ):
        list(data.val_dataloader())
    with pytest.raises(ValueError, match=r"6 of 24 .* no image of the class ants is left in val"):
        Folder(photos)


def test_a_way_that_there_is_not_is_refused(photos):
    with pytest.raises(ValueError, match=r'^on_bad_image is "skip", .* or "raise"; got \'ignore\'$'):
        Folder(photos, on_bad_image="ignore")
