"""PCA, t-SNE, and maps aligned to each other."""

import pytest
import torch
from sklearn.decomposition import PCA
from torch.testing import assert_close

from fulgurite.probes.moments import Moments
from fulgurite.probes.representation.map_quality import map_quality
from fulgurite.probes.representation.projections import aligned, pca, principal_axes, tsne


def cloud(points: int, dimensions: int = 6) -> torch.Tensor:
    values = torch.randn(points, dimensions, generator=torch.Generator().manual_seed(points))
    return values * torch.arange(1.0, dimensions + 1) + 3


def test_principal_axes_are_sklearns_up_to_sign():
    ours, theirs = pca(cloud(40), 3), torch.from_numpy(PCA(3).fit_transform(cloud(40).double().numpy()))
    assert_close(ours.abs(), theirs.abs().float(), rtol=1e-4, atol=1e-4)


def test_points_on_a_line_are_laid_out_by_hand():
    places = torch.tensor([-2.0, -1, 0, 3])
    points = torch.stack([-3 * places, -4 * places], 1) + 7
    # the larger entry of the axis (3, 4) / 5 counts as positive
    assert_close(pca(points, 1), -5 * places[:, None])


def test_the_picture_does_not_flip_with_the_points_order():
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert_close(pca(cloud(40)[order]), pca(cloud(40))[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "expected"), [((9, 1), 1), ((1, 9), 1), ((2, 9), 2), ((9, 2), 2), ((9, 9), 5)]
)
def test_there_are_no_more_axes_than_the_codes_have(shape, expected):
    assert pca(torch.rand(shape), 5).shape == (shape[0], expected)


@pytest.mark.parametrize("points", [0, 1, 2, 3, 4, 10, 100])
@pytest.mark.parametrize("dimensions", [1, 6])
def test_any_number_of_points_is_laid_out_in_the_plane(points, dimensions):
    places = tsne(cloud(points, dimensions), steps=250)
    assert places.shape == (points, 2)
    assert places.isfinite().all()


def test_neighbours_stay_neighbours_and_every_call_gives_the_same():
    codes = torch.cat([cloud(20), cloud(30) + 100])
    places = tsne(codes, steps=250)
    distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert (distances.argmin(1) < 20).tolist() == [True] * 20 + [False] * 30
    assert torch.equal(tsne(codes, steps=250), places)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("points", [24, 100])
def test_points_whose_codes_have_not_changed_move_by_less_than_a_tenth_of_the_map(points, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(points, 40, generator=generator)
    codes += torch.randn(3, 40, generator=generator)[torch.arange(points) % 3]
    before = tsne(codes)
    moved = (tsne(codes, start=before) - before).norm(dim=1).mean()
    assert float(moved) < 0.1 * float((before.amax(0) - before.amin(0)).amax())


@pytest.mark.slow
def test_a_map_that_begins_with_another_stays_where_it_was_and_is_as_good():
    codes = cloud(200)
    before = tsne(codes)
    again, cold = tsne(codes, start=before), tsne(cloud(200) * torch.tensor([1, 1, 1, 1, 1, 1.2]))
    size = float((before.amax(0) - before.amin(0)).amax())
    assert float((again - before).norm(dim=1).mean()) < 0.1 * size
    assert map_quality(codes, again).trustworthiness > map_quality(codes, cold).trustworthiness - 0.02
    # what has moved in code space moves on the map, the others hardly
    moved = codes.clone()
    moved[:10] = codes[100] + 0.01 * cloud(10)
    after = tsne(moved, start=before)
    steps = (after - before).norm(dim=1)
    assert steps[10:].mean() < 0.1 * size
    assert steps[:10].mean() > 2 * steps[10:].mean()


@pytest.mark.parametrize("mirrored", [1.0, -1.0])
def test_points_are_turned_mirrored_and_moved_onto_others_and_keep_their_size(mirrored):
    points = cloud(30, 2)
    turn = torch.tensor([[0.6, 0.8], [-0.8 * mirrored, 0.6 * mirrored]])
    assert_close(aligned(points @ turn + 5, points), points, rtol=1e-4, atol=1e-4)
    assert_close(aligned(2 * points, points), 2 * (points - points.mean(0)) + points.mean(0))


def test_a_start_on_one_spot_or_one_that_is_not_finite_is_no_start():
    for value in (3.0, float("nan")):
        assert torch.equal(
            tsne(cloud(20), start=torch.full((20, 2), value), steps=250), tsne(cloud(20), steps=250)
        )


@pytest.mark.parametrize("value", [0.0, 1 / 3, 1e20])
def test_equal_points_lie_on_one_spot(value):
    assert tsne(torch.full((10, 4), value)).std() <= 1e-6 * max(value, 1)


def test_many_equal_points_are_laid_out_too():
    assert tsne(cloud(2).repeat(6, 1), steps=250).isfinite().all()


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_huge_and_tiny_codes_are_laid_out_too(scale):
    places = tsne(scale * cloud(10), steps=250)
    assert places.isfinite().all()
    assert places.std() > 1


@pytest.mark.parametrize("layout", [pca, tsne])
def test_codes_that_are_not_finite_are_reported(layout):
    codes = cloud(5)
    codes[1, 2], codes[4, 0] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="2 of 5 codes hold values that are not finite"):
        layout(codes)


def test_principal_axes_of_a_stream_in_two_shares_are_those_of_all_codes_at_once():
    codes = (
        torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([5, 3, 2, 1, 0.5]) + 100
    )
    shares = [Moments([("", "")]) for _ in range(2)]
    for place, share in enumerate(shares):
        for rows in torch.arange(place, 60, 2).split(7):
            share.update(rows, {"": codes[rows]})
    shares[0].merge(shares[1])
    found = principal_axes(shares[0], "", 3)
    torch.testing.assert_close(found.project(codes), pca(codes, 3), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.variances, found.project(codes).double().var(0, correction=0))
    with pytest.raises(ValueError, match="0 images and the pairs"):
        principal_axes(Moments([("", "")]), "")
    with pytest.raises(ValueError, match="wanted at least 2, and"):
        principal_axes(shares[0], "other")
