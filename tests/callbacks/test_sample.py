"""The sample: any loader's images in [0, 1], the same ones every time, without touching a random state."""

import pytest
import somebody
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from fulgurite.callbacks.framework.sample import fetch

CPU = torch.device("cpu")
SCALE = {"mean": somebody.MEAN, "std": somebody.STD}


def sample(loader, count=None, **options):
    return fetch(loader, count, **{"classes": (), "device": CPU, **options})


@pytest.mark.parametrize("form", ["tuple", "list", "dict"])
def test_tuples_lists_and_dicts_are_understood_and_normalisation_undone(form: str):
    data = somebody.Blobs(10, form=form)
    got = sample(DataLoader(data, batch_size=4), **SCALE)
    torch.testing.assert_close(got.images, data.images)
    assert got.labels.tolist() == data.labels.tolist()


def test_the_sample_is_spread_evenly_over_the_set():
    data = TensorDataset(
        torch.arange(100).float().div(100)[:, None, None, None].expand(-1, 1, 2, 2), torch.arange(100)
    )
    assert sample(DataLoader(data, batch_size=7), 5).labels.tolist() == [0, 20, 40, 60, 80]
    assert len(sample(DataLoader(data, batch_size=7), 500)) == 100


def test_no_random_state_is_touched_and_no_iterator_started():
    class Counts(DataLoader):
        def __iter__(self):
            raise AssertionError("an iterator draws a seed")

    before = torch.get_rng_state()
    sample(Counts(somebody.Blobs(10, augment=True), batch_size=4, shuffle=True), **SCALE)
    assert torch.equal(before, torch.get_rng_state())


class Stream(IterableDataset):
    def __iter__(self):
        for label in range(100):
            yield torch.full((1, 2, 2), label / 100), label


def test_a_stream_gives_its_first_images():
    assert sample(DataLoader(Stream(), batch_size=4), 6).labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_list_of_batches_is_a_loader_too():
    batches = [(torch.rand(4, 1, 2, 2), torch.arange(4)) for _ in range(3)]
    assert len(sample(batches, 6)) == 6


def test_images_alone_have_no_labels():
    assert sample([torch.rand(4, 1, 2, 2)]).labels is None


def test_images_of_bytes_are_held_as_bytes_and_come_back_exactly():
    images = torch.randint(256, (5, 3, 4, 4)).float() / 255
    got = sample([images])
    assert got.pixels.source.pixels([0, 3]).dtype == torch.uint8
    assert torch.equal(got.images, images)
    fine = torch.rand(5, 3, 4, 4)
    assert torch.equal(sample([fine]).images, fine)


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        (torch.zeros(4, 3, 2, 2).byte(), r"images that are torch.uint8 .* width\]; images / 255"),
        (
            torch.rand(4, 3, 2, 2) * 255,
            r"images reach from .* to \d+; wanted \[0, 1\]; images / 255 in the data set",
        ),
        (torch.randn(4, 3, 2, 2), r"images reach from -\d.* wanted \[0, 1\]; if the data are normalised"),
        (torch.full((4, 3, 2, 2), torch.nan), "NaN or infinity in 4 of 4 images"),
        (torch.zeros(4, 3, 2, 2, dtype=torch.uint8), "torch.uint8"),
        (torch.rand(4, 2, 2), r"\(4, 2, 2\); wanted floating point \[n, channels"),
        ({"pictures": torch.rand(1, 3, 2, 2)}, "keys pictures; wanted its images under one of"),
        ("cat.jpg", "a batch that is a str"),
    ],
)
def test_what_cannot_be_looked_at_is_reported(batch, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        sample([batch])


def test_a_wrong_mean_is_reported():
    with pytest.raises(ValueError, match="are mean and std those of the data"):
        sample([torch.rand(4, 3, 2, 2)], mean=(5.0, 5.0, 5.0), std=(1.0, 1.0, 1.0))


def test_no_images_are_reported():
    with pytest.raises(ValueError, match="empty"):
        sample(DataLoader(Subset(somebody.Blobs(3), [])))


def test_a_part_of_a_sample_is_a_sample():
    got = sample(DataLoader(somebody.Blobs(9), batch_size=4), **SCALE)
    assert torch.equal(got[[2, 5]].images, got.images[[2, 5]])
    assert got[4:6].labels.tolist() == [1, 2]
