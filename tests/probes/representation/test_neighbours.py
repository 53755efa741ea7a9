"""Nearest neighbours: exactly scikit-learn's, in hard cases too; recall and kNN accuracy by hand."""

import pytest
import torch
from digits_network import digits, shifted, trained_once
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch.testing import assert_close

from fulgurite.probes.representation import neighbours
from fulgurite.probes.representation.codes import codes
from fulgurite.probes.representation.neighbours import (
    Neighbours,
    knn_accuracy,
    nearest_neighbours,
    pixel_codes,
    recall_at_k,
)


def cloud(points: int, dimensions: int = 24, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(points, dimensions, generator=generator, dtype=torch.float64)


@pytest.fixture(params=[(1024, 8192), (7, 11)], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    for name, rows in zip(("QUERIES", "BANK"), request.param, strict=True):
        monkeypatch.setattr(neighbours, name, rows)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("offset", [0.0, 1e4], ids=["centred", "far from the origin"])
def test_neighbours_are_sklearns_exactly(metric, offset, blocks):
    queries, bank = cloud(30, seed=1) + offset, cloud(200) + offset
    found = nearest_neighbours(queries, bank, k=9, metric=metric)
    machine = NearestNeighbors(
        n_neighbors=9, metric="euclidean" if metric == "l2" else metric, algorithm="brute"
    )
    distances, places = machine.fit(bank.numpy()).kneighbors(queries.numpy())
    if metric == "l2" or not offset:  # a cosine of 1 - 1e-9 has few digits, and sklearn's order is of those
        assert torch.equal(found.places, torch.from_numpy(places))
    assert_close(found.distances, torch.from_numpy(distances), rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_neighbours_that_float32_cannot_tell_apart_are_found_and_equal_ones_come_in_order(metric, blocks):
    bank = torch.ones(60, 8, dtype=torch.float64) + 1e-10 * cloud(60, 8)
    bank[40:50] = bank[3]
    bank[0] *= -50  # so that all others are at one place, to float32
    found = nearest_neighbours(bank, k=6, metric=metric)
    shifted = bank if metric == "l2" else bank / bank.norm(dim=1, keepdim=True)
    squared = (shifted[:, None] - shifted).square().sum(2).fill_diagonal_(torch.inf)
    assert torch.equal(found.places, squared.sort(stable=True).indices[:, :6])
    assert found.places[3].tolist() == [40, 41, 42, 43, 44, 45]


def test_no_image_is_its_own_neighbour_and_the_bank_may_be_of_another_type(blocks):
    points = cloud(40).float()
    alone, all_ = nearest_neighbours(points, k=3), nearest_neighbours(points, points.double(), k=4)
    assert torch.equal(all_.places[:, 0], torch.arange(40))
    assert torch.equal(all_.places[:, 1:], alone.places)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_huge_and_tiny_codes_have_neighbours_too(scale):
    points = cloud(50).float()
    assert torch.equal(
        nearest_neighbours(scale * points, k=3, metric="l2").places,
        nearest_neighbours(points, k=3, metric="l2").places,
    )


def test_accuracy_is_sklearns_and_recall_is_counted_by_hand():
    points, labels = cloud(90, 3), torch.arange(90) % 4
    bank, others = cloud(50, 3, seed=2), torch.arange(50) % 4
    found = nearest_neighbours(points, bank, k=5, metric="l2")
    machine = KNeighborsClassifier(5, algorithm="brute").fit(bank.numpy(), others.numpy())
    assert knn_accuracy(found, labels, others) == machine.score(points.numpy(), labels.numpy())
    by_hand = Neighbours(torch.tensor([[1, 2], [2, 0], [0, 1]]), torch.zeros(3, 2))
    assert recall_at_k(by_hand, torch.tensor([0, 0, 1])).tolist() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_codes_of_digits_tell_shifted_ones_far_better_than_pixels(metric):
    (images, labels), (others, wanted) = digits()
    moved, net = shifted(others, 3), trained_once()
    by_codes = nearest_neighbours(codes(net, moved), codes(net, images), metric=metric)
    by_pixels = nearest_neighbours(pixel_codes(moved), pixel_codes(images), metric=metric)
    assert knn_accuracy(by_codes, wanted, labels) >= knn_accuracy(by_pixels, wanted, labels) + 0.25


def test_large_images_are_averaged_down_and_small_ones_are_not():
    images = torch.rand(2, 3, 256, 128)
    assert_close(pixel_codes(images)[1, :2], images[1, 0, :4, :8].view(4, 2, 4).mean((0, 2)))
    assert torch.equal(pixel_codes(images[..., :64, :48]), images[..., :64, :48].flatten(1))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: nearest_neighbours(cloud(5), k=5), "5 neighbours among 4 others"),
        (lambda: nearest_neighbours(cloud(5), cloud(3), k=4), "4 neighbours among 3 codes"),
        (lambda: nearest_neighbours(cloud(5), k=0), "0 neighbours"),
        (lambda: nearest_neighbours(cloud(5)[:0], k=2), "2 neighbours among 0 others"),
        (lambda: nearest_neighbours(torch.full((5, 2), 0.1), k=2), "all 5 codes are equal"),
        (lambda: nearest_neighbours(cloud(9) / 0), "9 of 9 queries hold values that are not finite"),
    ],
)
def test_what_has_no_neighbours_is_reported(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
