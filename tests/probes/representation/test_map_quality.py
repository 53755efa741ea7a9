"""Quality of maps, their grids by optimal assignment, and the seams between cells."""

import itertools

import pytest
import torch
from sklearn.manifold import trustworthiness

from fulgurite.probes.render import heat
from fulgurite.probes.representation.map_quality import map_quality, seams, snapped
from fulgurite.probes.representation.projections import pca, tsne
from fulgurite.probes.representation.render_image_grid import SEAM, render_grid, render_scattered


def cloud(points: int, dimensions: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(points, dimensions, generator=torch.Generator().manual_seed(seed))


def test_a_map_of_planted_classes_is_trusted_and_more_than_the_principal_axes():
    codes = (2 * cloud(10, 64)[torch.arange(300) % 10] + cloud(300, 64, seed=1)).relu()
    best, other = (map_quality(codes, points) for points in (tsne(codes), pca(codes)))
    assert best.trustworthiness > 0.9
    assert best.trustworthiness > other.trustworthiness
    assert best.kept > other.kept


def test_quality_is_that_of_the_definitions():
    codes, points = cloud(40, 5), cloud(40, seed=1)
    found = map_quality(codes, points, k=4)
    assert found.trustworthiness == pytest.approx(
        trustworthiness(codes.numpy(), points.numpy(), n_neighbors=4)
    )
    near, seen = (
        torch.cdist(own, own).fill_diagonal_(torch.inf).argsort()[:, :4].tolist() for own in (codes, points)
    )
    kept = sum(len({*one} & {*other}) for one, other in zip(near, seen, strict=True)) / 160
    assert found.kept == pytest.approx(kept)
    same = map_quality(points, points)
    assert (same.trustworthiness, same.kept) == (1, 1)
    assert "100% of 10 neighbours kept" in same.caption


def test_equal_codes_have_no_quality():
    found = map_quality(torch.full((6, 3), 0.1), cloud(6))
    assert not found.known
    assert found.caption == "all codes are equal: places mean nothing"
    with pytest.raises(ValueError, match="a map of 3 images; wanted at least 4"):
        map_quality(cloud(3), cloud(3))


def test_the_grid_moves_points_the_least_of_all_grids():
    points = cloud(6)
    cells = snapped(points)
    assert {tuple(cell) for cell in cells.tolist()} <= set(itertools.product(range(2), range(3)))
    low, high = points.amin(0), points.amax(0)
    unit = (points - low) / (high - low)
    wanted = torch.stack([1 - unit[:, 1], 2 * unit[:, 0]], 1)
    every = torch.cartesian_prod(torch.arange(2), torch.arange(3)).float()
    least = min(
        float((wanted - every[list(order)]).square().sum()) for order in itertools.permutations(range(6))
    )
    assert float((wanted - cells).square().sum()) == pytest.approx(least)


def test_points_of_a_grid_stay_where_they_are_and_each_cell_of_a_large_grid_is_used_once():
    rows, columns = torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij")
    points = torch.stack([columns.flatten(), -rows.flatten()], 1).float()
    assert torch.equal(snapped(points), torch.stack([rows.flatten(), columns.flatten()], 1))
    assert len(snapped(cloud(900)).unique(dim=0)) == 900


def test_seams_are_distances_to_the_right_and_below():
    codes = torch.eye(3)[[0, 0, 1]]
    right, below = seams(codes, torch.tensor([[0, 0], [0, 1], [1, 0]]))
    assert right[0, 0] == 0
    assert below[0, 0] == 1
    assert right.isfinite().tolist() == [[True, False], [False, False]]
    assert below.isfinite().tolist() == [[True, False], [False, False]]


def test_the_picture_has_thumbnails_in_cells_and_seams_between_them():
    tiles = [torch.full((3, 8, 8), 50 * place + 100, dtype=torch.uint8) for place in range(3)]
    paper = render_grid(tiles, torch.tensor([[0, 0], [0, 1], [1, 0]]), torch.eye(3)[[0, 0, 1]])
    step = 8 + SEAM
    for tile, (row, column) in zip(tiles, ((0, 0), (0, 1), (1, 0)), strict=True):
        assert torch.equal(paper[:, row * step : row * step + 8, column * step : column * step + 8], tile)
    assert paper[:, 4, 8].tolist() == heat(torch.zeros(1, 1), top=1.0)[:, 0, 0].tolist()
    assert paper[:, 8, 4].tolist() == heat(torch.ones(1, 1), top=1.0)[:, 0, 0].tolist()


def test_scattered_thumbnails_lie_at_their_places():
    tiles = [torch.full((3, 4, 4), shade, dtype=torch.uint8) for shade in (100, 200)]
    paper = render_scattered(tiles, torch.tensor([[0.0, 0.0], [1.0, 2.0]]), side=20)
    assert paper.shape == (3, 24, 24)
    assert paper[0, 22, 2] == 100  # x to the right, y upwards
    assert paper[0, 2, 22] == 200


@pytest.mark.parametrize("points", [torch.zeros(0, 2), torch.zeros(1601, 2), torch.full((4, 2), torch.nan)])
def test_what_fits_no_grid_is_reported(points):
    with pytest.raises(ValueError, match=r"images on a grid; wanted 1 to 1600|places on a map that are not"):
        snapped(points)
