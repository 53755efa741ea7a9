"""Fingerprints of data sets: other images or labels give another key, however they are read."""

import os
from pathlib import Path

import pytest
import torch
import torchvision
from cached_features import IMAGES, LABELS, Dims, Mapped, Net, key
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from fulgurite.data.datasets import InMemory
from fulgurite.data.folder import Folder
from fulgurite.probes.representation.stages import features


def one_pixel() -> torch.Tensor:
    images = IMAGES.clone()
    images[4, 2, 7, 7] += 1e-6
    return images


class CelebA(torchvision.datasets.CelebA):
    """Torchvision's, without its check of the whole download."""

    def _check_integrity(self):
        return True


def test_an_image_that_is_reached_by_a_path_of_the_data_sets_own_is_seen_to_change(tmp_path: Path):
    base, names = tmp_path / "celeba", [f"{number:06d}.jpg" for number in range(40)]
    (base / "img_align_celeba").mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(base / "img_align_celeba" / name)
    numbers = {"list_eval_partition": "0", "identity_CelebA": "1", "list_bbox_celeba": "0 0 1 1"}
    numbers |= {"list_landmarks_align_celeba": "0 0 1 1", "list_attr_celeba": " ".join(["1"] * 40)}
    for file, row in numbers.items():
        head = [] if file in ("list_eval_partition", "identity_CelebA") else ["40", " ".join(["a"] * 40)]
        (base / f"{file}.txt").write_text("\n".join([*head, *(f"{name} {row}" for name in names)]))

    def read() -> torch.Tensor:
        data = CelebA(tmp_path, target_type="identity", transform=torchvision.transforms.ToTensor())
        return features(Net(), data, ["one"], cache=tmp_path / "cache").of["one"].clone()

    before = read()
    Image.new("RGB", (20, 20), (250, 0, 0)).save(base / "img_align_celeba" / names[21])
    after = read()
    assert (before != after).any(1).nonzero().tolist() == [[21]]


class Made(Dataset):
    """Images that are made on request; nothing of them is in memory."""

    def __init__(self, count: int = 9, *, last: float = 0.5):
        self.count, self.last = count, last

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((3, 8, 8), self.last if index == self.count - 2 else index / self.count), index % 3


DATA = {
    "a pixel": (lambda: (IMAGES, LABELS), lambda: (one_pixel(), LABELS)),
    "a label": (lambda: (IMAGES, LABELS), lambda: (IMAGES, LABELS.flip(0))),
    "the order": (lambda: Mapped(), lambda: Mapped(IMAGES.flip(0), LABELS.flip(0))),
    "a pixel of a data set": (Mapped, lambda: Mapped(one_pixel())),
    "a label of a data set": (Mapped, lambda: Mapped(labels=LABELS.flip(0))),
    "a transform": (Mapped, lambda: Mapped(transform=Dims(0.5))),
    "a transform's number": (lambda: Mapped(transform=Dims(0.4)), lambda: Mapped(transform=Dims(0.5))),
    "a transform that cannot be pickled": (
        lambda: Mapped(transform=lambda image: image * 0.4),
        lambda: Mapped(transform=lambda image: image * 0.5),
    ),
    "a pixel where nothing can be pickled": (
        lambda: Mapped(transform=lambda image: image),
        lambda: Mapped(one_pixel(), transform=lambda image: image),
    ),
    "a subset": (
        lambda: torch.utils.data.Subset(Mapped(), [0, 1, 2, 3]),
        lambda: torch.utils.data.Subset(Mapped(), [0, 1, 2, 4]),
    ),
    "what is made": (lambda: Made(64), lambda: Made(64, last=0.6)),
    "a numpy array": (
        lambda: Mapped(IMAGES.numpy(), transform=torch.from_numpy),
        lambda: Mapped(one_pixel().numpy(), transform=torch.from_numpy),
    ),
    "the size of our own": (
        lambda: InMemory(IMAGES, LABELS, ("a", "b", "c")),
        lambda: InMemory(IMAGES, LABELS, ("a", "b", "c"), size=16),
    ),
    "what yields batches": (lambda: [(IMAGES, LABELS)], lambda: [(one_pixel(), LABELS)]),
}


@pytest.mark.parametrize(("one", "other"), DATA.values(), ids=DATA)
def test_other_data_are_another_key(one, other):
    assert key(data=one()) == key(data=one())
    assert key(data=other()) == key(data=other())
    assert key(data=one()) != key(data=other())


def test_how_a_loader_deals_images_out_does_not_matter():
    dataset = Mapped()
    keys = {key(data=DataLoader(dataset, size, shuffle=size > 2)) for size in (1, 2, 3, 9)}
    assert keys == {key(data=dataset)}


def test_edited_code_of_a_transform_shows_in_the_images(monkeypatch):
    before = key(data=Mapped(transform=Dims(0.5)))
    monkeypatch.setattr(Dims, "__call__", lambda self, image: image / (1 + self.by))
    assert key(data=Mapped(transform=Dims(0.5))) != before


def pictures(folder: Path) -> Path:
    for name, level in (("ants", 50), ("bees", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            Image.new("RGB", (20, 20), (level, number, 0)).save(folder / name / f"{number:02d}.bmp")
    return folder


def theirs(folder: Path) -> tuple[Dataset, Path]:
    """A user's data set, and one of its files that is not among the sixteen."""
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(8), torchvision.transforms.ToTensor()]
    )
    dataset = torchvision.datasets.ImageFolder(folder, transform)
    return dataset, Path(dataset.samples[43][0])


def ours(folder: Path) -> tuple[Dataset, Path]:
    data = Folder(folder, size=8, augment=False)
    data.setup()
    return data.train, data.files["train"]["bees"][3]


@pytest.mark.parametrize("make", [theirs, ours])
def test_a_file_that_was_written_anew_is_another_key_however_like_the_old_one(tmp_path: Path, make):
    folder = pictures(tmp_path / "all")
    before = key(data=make(folder)[0])
    dataset, file = make(folder)
    assert key(data=dataset) == before
    # as many bytes, and of the same age
    stat = file.stat()
    Image.new("RGB", (20, 20), (1, 2, 3)).save(file)
    assert file.stat().st_size == stat.st_size
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert key(data=make(folder)[0]) != before


class Lazy(Dataset):
    """Stores the name of a folder and the labels; images are opened only when they are read."""

    def __init__(self, folder: Path):
        self.folder, self.labels = str(folder), torch.arange(40) % 3

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.load(Path(self.folder) / f"{index}.pt", weights_only=True), int(self.labels[index])


def test_data_that_name_no_files_are_read_to_the_end(tmp_path: Path):
    for number in range(40):
        torch.save(torch.rand(3, 8, 8), tmp_path / f"{number}.pt")
    before = key(data=Lazy(tmp_path))
    assert key(data=Lazy(tmp_path)) == before
    looked_at = {place * 40 // 16 for place in range(16)}
    torch.save(torch.rand(3, 8, 8), tmp_path / f"{next(n for n in range(40) if n not in looked_at)}.pt")
    assert key(data=Lazy(tmp_path)) != before
