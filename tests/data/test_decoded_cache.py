"""Decoded images are kept exactly, by any number of processes, and never in place of what has changed."""

import copy
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fulgurite.data import decoded_cache, readable_images
from fulgurite.data.decoded_cache import LENGTH, DecodedCache
from fulgurite.data.folder import Folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    for name in ("ants", "bees"):
        (folder / name).mkdir(parents=True)
        for index in range(4):
            noise = np.random.default_rng(index).integers(0, 256, (40 + index, 50, 3), np.uint8)
            Image.fromarray(noise).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def decodings(monkeypatch):
    """The files that are decoded."""
    files, read_image = [], readable_images.read_image

    def counted(file, **options):
        files.append(file.name)
        return read_image(file, **options)

    monkeypatch.setattr(readable_images, "read_image", counted)
    return files


def images(photos: Path, **options) -> torch.Tensor:
    data = Folder(photos, size=32, augment=False, **options)
    return torch.stack([image for part in data.parts()[:2] for image, _ in part])


def kept(photos: Path, ending: str) -> Path:
    (file,) = (photos.parent / "cache" / "decoded").glob(f"*{ending}")
    return file


@pytest.mark.parametrize("channels", [1, 3])
def test_each_is_decoded_once_and_is_the_same(photos, decodings, channels):
    plain = images(photos, channels=channels)
    decodings.clear()
    for _ in range(3):
        assert torch.equal(images(photos, channels=channels, decoded=0), plain)
    assert len(decodings) == 8


def test_a_changed_file_and_another_way_of_decoding_are_decoded_anew(photos, decodings):
    images(photos, decoded=0)
    decodings.clear()
    Image.new("RGB", (50, 40), "red").save(photos / "ants" / "1.png")
    assert torch.equal(images(photos, decoded=0), images(photos))
    assert decodings.count("1.png") == 1 + 2  # the cache's one, and those without a cache
    decodings.clear()
    images(photos, decoded=0, channels=1)
    assert len(decodings) == 8


def test_the_shorter_side_is_reduced(photos):
    images(photos, decoded=0)
    whole = kept(photos, ".pixels").stat().st_size
    assert whole == sum(2 * (40 + index) * 50 * 3 for index in range(4))
    small = DecodedCache(photos, how="test", side=20)
    for _ in range(2):
        found = small.read(str(photos / "ants" / "0.png"), lambda: Image.new("RGB", (50, 40)))
        assert found.size == (25, 20)
    assert kept(photos, ".pixels").stat().st_size == whole + 25 * 20 * 3
    assert (images(photos, decoded=36) - images(photos)).abs().mean() < 0.1


def test_processes_append_side_by_side(photos):
    data = Folder(photos, size=32, augment=False, decoded=0)
    train = data.parts()[0]
    with ProcessPoolExecutor(2) as pool:
        found = list(pool.map(train.__getitem__, [*range(len(train))] * 4))
    plain = Folder(photos, size=32, augment=False).parts()[0]
    assert all(torch.equal(image, plain[place % len(train)][0]) for place, (image, _) in enumerate(found))
    assert torch.equal(images(photos, decoded=0), images(photos))


def test_what_is_damaged_is_decoded_anew(photos, decodings):
    plain = images(photos, decoded=0)
    pixels, index = kept(photos, ".pixels"), kept(photos, ".index")
    pixels.write_bytes(bytes(100) + pixels.read_bytes()[100:])
    decodings.clear()
    assert torch.equal(images(photos, decoded=0), plain)
    assert len(decodings) == 1
    # a killed process left half an entry
    index.write_bytes(index.read_bytes()[: 3 * LENGTH + 7])
    decodings.clear()
    for _ in range(2):
        assert torch.equal(images(photos, decoded=0), plain)
    assert 5 <= len(decodings) <= 6
    assert index.stat().st_size % LENGTH == 0
    index.write_bytes(os.urandom(10 * LENGTH))
    assert torch.equal(images(photos, decoded=0), plain)
    pixels.unlink()
    assert torch.equal(images(photos, decoded=0), plain)


def test_a_full_disk_is_reported_once_and_stops_nothing(photos, monkeypatch):
    plain = images(photos)
    monkeypatch.setattr(decoded_cache, "LEAST_FREE", 2**60)
    with pytest.warns(UserWarning, match="no longer kept") as reported:
        assert torch.equal(images(photos, decoded=0), plain)
    assert sum("no longer kept" in str(one.message) for one in reported) == 1


def test_it_may_be_copied_and_sent(photos):
    cache = DecodedCache(photos, how="test")
    file = str(photos / "ants" / "0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = cache.read(file, lambda: Image.open(file).convert("RGB"))
        for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
            assert other.read(file, lambda: pytest.fail("decoded again")).tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decoded": -1}, "decoded=-1"),
        ({"decoded": 16}, "less than size"),
        ({"decoded": 0, "loader": np.load}, "arrays"),
    ],
)
def test_bad_values_are_named(photos, options, words):
    with pytest.raises(ValueError, match=words):
        Folder(photos, size=32, **options)
