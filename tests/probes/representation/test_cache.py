"""The cache of features: atomic, mapped, and rebuilt where it is damaged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cached_features import IMAGES, LABELS, Dims, Mapped, Net, key
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.probes.representation.cache import load_cached, write_cached
from fulgurite.probes.representation.fingerprint import fingerprint_data
from fulgurite.probes.representation.stages import features


def counted(network: nn.Module) -> list[int]:
    """The sizes of the batches that go through it from now on."""
    sizes = []
    network.two.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    return sizes


def test_the_second_time_a_few_images_go_through_the_network(tmp_path: Path):
    network = Net()
    images = torch.rand(500, 3, 8, 8)
    data = DataLoader(TensorDataset(images, torch.arange(500) % 3), batch_size=40, shuffle=True)
    sizes = counted(network)
    first = features(network, data, ["one", "two"], cache=tmp_path)
    assert sum(sizes) == 500 + 26
    sizes.clear()
    again = features(network, data, ["one", "two"], cache=tmp_path)
    assert sum(sizes) == 26 + 8
    alone = features(network, data, ["one", "two"])
    for layer in ("one", "two"):
        assert torch.equal(first.of[layer], again.of[layer])
        assert torch.equal(alone.of[layer], again.of[layer])
    assert torch.equal(again.labels, torch.arange(500) % 3)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_files_are_numpy_s_and_mapped_into_memory(tmp_path: Path, dtype):
    found = features(Net(), (IMAGES, LABELS), ["one", "two"], dtype=dtype, cache=tmp_path)
    (place,) = tmp_path.iterdir()
    array = np.load(place / "1.npy")
    assert found.of["two"].dtype == dtype
    assert torch.equal(torch.from_numpy(array), found.of["two"])
    if Path("/proc/self/maps").exists():
        assert str(place / "1.npy") in Path("/proc/self/maps").read_text()
    found.of["two"].zero_()
    again = features(Net(), (IMAGES, LABELS), ["one", "two"], dtype=dtype, cache=tmp_path)
    assert torch.equal(torch.from_numpy(array), again.of["two"])


def test_augmented_data_are_not_kept(tmp_path: Path):
    own = np.random.default_rng(0)
    for noise in (lambda: torch.rand(()), np.random.rand, own.random):
        noisy = Mapped(transform=lambda image, noise=noise: (image + noise()).float())
        with pytest.raises(ValueError, match="another image each time they are read"):
            features(Net(), DataLoader(noisy), ["one"], cache=tmp_path)
        assert not list(tmp_path.iterdir())
        assert len(features(Net(), DataLoader(noisy), ["one"])) == 9


class Shrinks:
    """Gives one image fewer each time it is gone through."""

    count = 9

    def __iter__(self):
        self.count -= 1
        return iter(list(zip(IMAGES[:, None], LABELS[:, None], strict=True))[: self.count])


def test_data_that_are_fewer_the_second_time_are_not_kept(tmp_path: Path):
    with pytest.raises(ValueError, match="another image each time they are read"):
        features(Net(), Shrinks(), ["one"], cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_data_that_can_be_read_once_are_not_kept(tmp_path: Path):
    with pytest.raises(ValueError, match="can be read only once"):
        features(Net(), iter([(IMAGES, LABELS)]), ["one"], cache=tmp_path)
    assert len(features(Net(), iter([(IMAGES, LABELS)]), ["one"])) == 9


def test_looking_at_data_draws_no_number():
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    key(data=DataLoader(Mapped(transform=Dims(0.5)), 4, shuffle=True))
    assert torch.equal(state, torch.get_rng_state())
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002


class Breaks(Mapped):
    """Its sixth image cannot be read, until it is mended."""

    broken = True

    def __getitem__(self, index):
        if Breaks.broken and index == 5:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_what_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch):
    known = fingerprint_data(DataLoader(Mapped(), 2))
    monkeypatch.setattr("fulgurite.probes.representation.stages.fingerprint_data", lambda *_, **__: known)
    with pytest.raises(KeyboardInterrupt):
        features(Net(), DataLoader(Breaks(), 2), ["one"], cache=tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(Breaks, "broken", False)
    assert len(features(Net(), DataLoader(Breaks(), 2), ["one"], cache=tmp_path)) == 9


def test_nothing_is_found_before_everything_is_written(tmp_path: Path):
    found = []

    def passes():
        for start in range(0, 9, 3):
            found.append(load_cached(tmp_path, "key"))
            yield {"one": IMAGES[start : start + 3].flatten(1)}, LABELS[start : start + 3]

    write_cached(tmp_path, "key", passes())
    assert found == [None, None, None]
    assert load_cached(tmp_path, "key") is not None


@pytest.mark.parametrize("harm", ["missing", "short", "unlisted"])
def test_what_is_not_whole_is_made_anew(tmp_path: Path, harm):
    expected = features(Net(), (IMAGES, LABELS), ["one"]).of["one"]
    features(Net(), (IMAGES, LABELS), ["one"], cache=tmp_path)
    (place,) = tmp_path.iterdir()
    if harm == "missing":
        (place / "0.npy").unlink()
    elif harm == "short":
        content = (place / "0.npy").read_bytes()
        (place / "0.npy").unlink()
        (place / "0.npy").write_bytes(content[:-4])
    else:
        (place / "layers.json").unlink()
    assert torch.equal(features(Net(), (IMAGES, LABELS), ["one"], cache=tmp_path).of["one"], expected)
    assert list(tmp_path.iterdir()) == [place]


def test_of_two_that_write_at_once_the_first_is_kept(tmp_path: Path):
    def passes(level: float, then=lambda: None):
        yield {"one": torch.full((3, 2), level)}, LABELS[:3]
        then()

    slow, _ = write_cached(
        tmp_path, "key", passes(1.0, then=lambda: write_cached(tmp_path, "key", passes(2.0)))
    )
    assert slow["one"].unique().tolist() == [2.0]
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_rows_may_be_more_than_digits_were_left_for(tmp_path: Path):
    passes = (({"one": torch.full((1000, 1), float(part))}, torch.zeros(1000).long()) for part in range(120))
    layers, labels = write_cached(tmp_path, "key", passes)
    assert layers["one"].shape == (120_000, 1)
    assert layers["one"][::1000, 0].tolist() == list(range(120))
    assert len(labels) == 120_000
