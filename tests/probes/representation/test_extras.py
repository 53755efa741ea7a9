"""UMAP and approximate neighbours, which need extra packages, and the errors without these."""

import pytest
import torch

from fulgurite.callbacks.embeddings import Embeddings
from fulgurite.probes.representation import approximate_neighbours as approximate
from fulgurite.probes.representation import projections
from fulgurite.probes.representation.approximate_neighbours import approximate_neighbours
from fulgurite.probes.representation.map_quality import map_quality
from fulgurite.probes.representation.neighbours import nearest_neighbours
from fulgurite.probes.representation.projections import pca, umap


def clusters(count: int, classes: int = 6, size: int = 24) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(0)
    middles = 3 * torch.randn(classes, size, generator=drawn)
    return (middles[torch.arange(count) % classes] + torch.randn(count, size, generator=drawn)).relu()


def test_umap_is_repeated_trusted_and_aligned_to_its_start():
    pytest.importorskip("umap", reason="umap-learn is missing")
    codes = clusters(240)
    first, again = umap(codes), umap(codes)
    assert torch.equal(first, again)
    quality = map_quality(codes, first)
    assert quality.trustworthiness > max(0.85, map_quality(codes, pca(codes)).trustworthiness)
    # the same codes at the next look: points stay where they are, up to a tenth of the map
    size = float((first.amax(0) - first.amin(0)).norm())
    assert float((umap(codes, start=first) - first).norm(dim=1).mean()) < size / 10
    assert umap(codes[:5]).shape == (5, 2)
    assert torch.equal(umap(torch.ones(6, 4)), torch.zeros(6, 2))


def test_a_map_by_umap_is_refused_in_one_sentence_without_it(monkeypatch):
    monkeypatch.setattr(projections, "find_spec", lambda name: None)
    for ask in (lambda: umap(torch.rand(9, 3)), lambda: Embeddings(method="umap")):
        with pytest.raises(
            ValueError, match=r"umap-learn, which is not installed; pip install 'fulgurite\[umap\]'"
        ):
            ask()
    with pytest.raises(ValueError, match="a map by 'isomap'; wanted tsne or umap"):
        projections.check_map("isomap")


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_approximate_neighbours_are_nearly_the_exact_ones_and_say_how_nearly(metric: str):
    pytest.importorskip("faiss", reason="faiss-cpu is missing")
    codes = clusters(600)
    exact = nearest_neighbours(codes, k=4, metric=metric)
    found, recall, checked = approximate_neighbours(codes, k=4, metric=metric, check=600)
    assert checked == 600
    same = (exact.places[:, :, None] == found.places[:, None]).any(2).double().mean()
    assert recall == pytest.approx(float(same))
    assert recall > 0.97
    assert not bool((found.places == torch.arange(600)[:, None]).any())  # none is its own
    right = (exact.places == found.places).all(1)
    torch.testing.assert_close(found.distances[right], exact.distances[right])
    queries = clusters(700)[600:]
    found = approximate_neighbours(queries, codes, k=3, metric=metric, check=0)
    assert found.checked == 0
    wanted = nearest_neighbours(queries, codes, k=3, metric=metric)
    assert float((wanted.places == found.found.places).double().mean()) > 0.97


def test_a_query_that_the_search_missed_drops_its_last_neighbour():
    places = torch.tensor([[0, 4, 5], [3, 6, 7], [1, 2, 8]])
    assert approximate._without(places, torch.arange(3)).tolist() == [[4, 5], [3, 6], [1, 8]]


def test_what_cannot_be_searched_is_one_sentence(monkeypatch):
    monkeypatch.setattr(approximate, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="9 neighbours among 5 others"):
        approximate_neighbours(torch.rand(6, 3), k=9)
    with pytest.raises(ValueError, match="8 candidates for 9 neighbours; wanted more"):
        approximate_neighbours(torch.rand(60, 3), k=9, candidates=8)
    monkeypatch.setattr(approximate, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"faiss-cpu, which is not installed; pip install"):
        approximate_neighbours(torch.rand(6, 3), k=2)
