"""torchvision's data sets by name, from small files of the same format."""

import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from fulgurite.data.torchvision_facts import FACTS, PARTS
from fulgurite.data.torchvision_sets import TorchvisionSet


def ready(name, **knobs):
    data = TorchvisionSet(name, **knobs)
    data.prepare_data()
    data.setup()
    return data


def idx(path, array):
    """Writes the format of MNIST and its like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = np.array(array.shape, dtype=">i4").tobytes()
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def write_mnist(root, name="MNIST", prefixes=("train", "t10k"), classes=10):
    draw = np.random.default_rng(0)
    for prefix, count in zip(prefixes, (20 * classes, 5 * classes), strict=True):
        raw = root / name / "raw"
        idx(raw / f"{prefix}-images-idx3-ubyte", draw.integers(0, 256, (count, 28, 28)))
        idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count) % classes)


class FakeCIFAR:
    """CIFAR-10 in its interface, tiny and without files."""

    base_folder = "cifar-10-batches-py"

    def __init__(self, root, train=True, download=False):
        draw = np.random.default_rng(train)
        count = 200 if train else 50
        self.data = draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = [index % 10 for index in range(count)]


class FakeSVHN:
    """SVHN in its interface: channels first, labels as an array."""

    def __init__(self, root, split="train", download=False):
        self.data = np.random.default_rng(0).integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
        self.labels = np.arange(100) % 10


@pytest.fixture
def mnist(tmp_path):
    write_mnist(tmp_path)
    return ready("MNIST", root=tmp_path, augment=False)


@pytest.mark.parametrize("name", FACTS)
def test_facts_are_known_without_a_download(name, tmp_path):
    data = TorchvisionSet(name, root=tmp_path)
    assert len(set(data.classes)) == len(data.classes) >= 10
    assert len(data.mean) == len(data.std) == data.channels
    assert list(tmp_path.iterdir()) == []


def test_the_facts_have_all_classes():
    numbers = {"EMNIST": 47, "CIFAR100": 100}
    assert all(len(facts.classes) == numbers.get(name, 10) for name, facts in FACTS.items())


@pytest.mark.parametrize("name", PARTS)
def test_torchvision_has_every_set(name):
    assert hasattr(datasets, name)


def test_a_tenth_of_each_class_is_set_aside(mnist):
    assert mnist.train.labels.bincount().tolist() == [18] * 10
    assert mnist.val.labels.bincount().tolist() == [2] * 10
    assert mnist.test.labels.bincount().tolist() == [5] * 10
    together = torch.cat([mnist.train.images, mnist.val.images])
    assert len(together.flatten(1).unique(dim=0)) == 200


def test_the_seed_decides_the_split(mnist, tmp_path):
    assert torch.equal(ready("MNIST", root=tmp_path).val.images, mnist.val.images)
    assert not torch.equal(ready("MNIST", root=tmp_path, seed=1).val.images, mnist.val.images)


def test_images_are_kept_as_bytes_and_given_in_bounds(mnist):
    assert mnist.train.images.dtype == torch.uint8
    images, labels = next(iter(mnist.train_dataloader()))
    assert images.shape == (64, 1, 28, 28)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (images.min(), images.max()) == (0, 1)


def test_one_index_gives_what_the_batch_gives(mnist):
    images, labels = next(iter(mnist.val_dataloader()))
    for index in range(20):
        assert torch.equal(mnist.val[index][0], images[index])
        assert mnist.val[index][1] == labels[index]


def test_images_take_on_another_size(tmp_path):
    write_mnist(tmp_path)
    data = ready("MNIST", root=tmp_path, size=32)
    assert data.size == 32
    for loader in (data.train_dataloader(), data.test_dataloader()):
        images, _ = next(iter(loader))
        assert images.shape[1:] == (1, 32, 32)
        assert images.min() >= 0
        assert images.max() <= 1


def test_only_training_images_change(tmp_path, mnist):
    data = ready("MNIST", root=tmp_path)
    assert not torch.equal(data.train[0][0], data.train[0][0])
    assert torch.equal(data.val[0][0], data.val[0][0])
    assert torch.equal(mnist.train[0][0], mnist.train[0][0])


def test_letters_stand_upright(tmp_path):
    write_mnist(tmp_path, "EMNIST", ("emnist-balanced-train", "emnist-balanced-test"), classes=47)
    data = ready("EMNIST", root=tmp_path)
    stored = datasets.EMNIST(tmp_path, split="balanced", train=False).data
    assert torch.equal(data.test.images[:, 0], stored.mT)
    assert len(data.classes) == 47


def test_colour_comes_before_rows(monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR10", FakeCIFAR)
    data = ready("CIFAR10", augment=False)
    assert (len(data.train), len(data.val), len(data.test)) == (180, 20, 50)
    pixels = torch.from_numpy(FakeCIFAR("", train=False).data[7]).permute(2, 0, 1) / 255
    assert torch.equal(data.test[7][0], pixels)
    images, labels = next(iter(ready("CIFAR10").train_dataloader()))
    assert images.shape == (len(labels), 3, 32, 32)


def test_channels_that_come_first_stay_there(monkeypatch):
    monkeypatch.setattr(datasets, "SVHN", FakeSVHN)
    data = ready("SVHN")
    assert torch.equal(data.test.images, torch.from_numpy(FakeSVHN("").data))


def test_of_eight_labels_the_first_is_the_digit(monkeypatch):
    class FakeQMNIST(FakeCIFAR):
        def __init__(self, root, train=True, download=False):
            super().__init__(root, train)
            self.data = torch.from_numpy(self.data[..., 0])
            self.targets = torch.tensor(self.targets)[:, None] + 100 * torch.arange(8)

    monkeypatch.setattr(datasets, "QMNIST", FakeQMNIST)
    assert ready("QMNIST").test.labels.unique().tolist() == list(range(10))


def test_signs_are_never_mirrored_and_animals_are(monkeypatch):
    class Halves(FakeCIFAR):
        def __init__(self, root, download=False, **part):
            super().__init__(root)
            self.data[:] = np.arange(32, dtype=np.uint8)[None, None, :, None]

    def mirrored(data):
        images, _ = next(iter(data.train_dataloader()))
        return (images[..., 20] < images[..., 12]).any()

    monkeypatch.setattr(datasets, "CIFAR10", Halves)
    monkeypatch.setattr(datasets, "SVHN", Halves)
    assert mirrored(ready("CIFAR10"))
    assert not mirrored(ready("SVHN"))


def test_presets_are_those_of_photographs(monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR10", FakeCIFAR)
    data = {name: ready("CIFAR10", augment=name) for name in (False, True, "standard", "cutmix")}
    assert [own.augment for own in data.values()] == ["none", "standard", "standard", "cutmix"]
    assert [own.mixing for own in data.values()] == [(), (), (), ("cutmix",)]
    batches = [next(iter(own.train_dataloader()))[0] for own in data.values()]
    assert torch.equal(batches[1], batches[2])
    assert torch.equal(batches[1], batches[3])  # mixed by the model
    assert not torch.equal(batches[0], batches[1])
    with pytest.raises(ValueError, match=r"no augmentation 'strnog' among none, .*; nearest: strong"):
        TorchvisionSet("CIFAR10", augment="strnog")


def test_a_set_without_test_images_is_tested_on_val(tmp_path):
    for name in ("Forest", "River", "Sea"):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (64, 64), (index, 0, 0)).save(folder / f"{index}.jpg")
    data = ready("EuroSAT", root=tmp_path)
    assert (data.classes, data.size, data.channels) == (("Forest", "River", "Sea"), 64, 3)
    assert (len(data.train), len(data.val)) == (27, 3)
    assert data.test is data.val
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (27, 3, 64, 64)
    assert torch.equal(data.val[1][0], next(iter(data.val_dataloader()))[0][1])
    assert sorted(labels.tolist()) == [0] * 9 + [1] * 9 + [2] * 9


def test_images_of_many_sizes_become_224(tmp_path):
    listed = {}
    for name in ("apple_pie", "waffles"):
        (tmp_path / "food-101" / "images" / name).mkdir(parents=True)
        listed[name] = [f"{name}/{index}" for index in range(4)]
        for index in range(4):
            Image.new("RGB", (50 + index, 40), "red").save(
                tmp_path / "food-101" / "images" / name / f"{index}.jpg"
            )
    (tmp_path / "food-101" / "meta").mkdir()
    for part in ("train", "test"):
        (tmp_path / "food-101" / "meta" / f"{part}.json").write_text(json.dumps(listed))
    data = ready("Food101", root=tmp_path)
    assert (data.classes, data.size) == (("apple_pie", "waffles"), 224)
    assert data.test[0][0].shape == (3, 224, 224)
    assert ready("Food101", root=tmp_path, size=20).train[0][0].shape == (3, 20, 20)


def test_classes_without_names_are_numbered(tmp_path):
    signs = tmp_path / "gtsrb" / "GTSRB"
    for number in range(3):
        (signs / "Training" / f"0000{number}").mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (30, 32), "red").save(signs / "Training" / f"0000{number}" / f"{index}.ppm")
    (signs / "Final_Test" / "Images").mkdir(parents=True)
    Image.new("RGB", (30, 32), "red").save(signs / "Final_Test" / "Images" / "0.ppm")
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\n0.ppm;2\n")
    data = ready("GTSRB", root=tmp_path)
    assert data.classes == ("0", "1", "2")
    assert data.test[0][1] == 2


def test_a_misspelt_name_lists_the_nearest():
    with pytest.raises(ValueError, match=r"'cifar-10' .* nearest: CIFAR10"):
        TorchvisionSet("cifar-10")
    with pytest.raises(ValueError, match="CIFAR10, "):
        TorchvisionSet("qqqq")


def test_a_failed_download_names_the_files_and_their_folder(tmp_path, monkeypatch):
    def offline(self):
        raise RuntimeError("Error downloading train-images:\nTried a mirror, got:\nno network")

    monkeypatch.setattr(datasets.MNIST, "download", offline)
    data = TorchvisionSet("FashionMNIST", root=tmp_path)
    with pytest.raises(
        ValueError, match=r"FashionMNIST could not be downloaded .*no network.*FashionMNIST/raw"
    ):
        data.prepare_data()


def test_a_set_to_be_opened_for_its_facts_fails_at_once(tmp_path, monkeypatch):
    def offline(self):
        raise OSError("no network")

    monkeypatch.setattr(datasets.EuroSAT, "download", offline)
    with pytest.raises(ValueError, match="EuroSAT could not be downloaded"):
        TorchvisionSet("EuroSAT", root=tmp_path)


def test_setup_before_the_download_raises_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match=r"CIFAR10 is not in .*prepare_data.*cifar-10-batches-py"):
        TorchvisionSet("CIFAR10", root=tmp_path).setup()


def test_a_senseless_size_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        TorchvisionSet("MNIST", size=0)


def test_the_real_mnist(real_data, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (real_data / "mnist").glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    data = ready("MNIST", root=tmp_path, augment=False)
    assert [len(part) for part in (data.train, data.val, data.test)] == [54001, 5999, 10000]
    images = data.train.images.float() / 255
    assert images.mean().item() == pytest.approx(data.mean[0], abs=1e-3)
    assert images.std().item() == pytest.approx(data.std[0], abs=1e-3)
