"""Gradients in tiles: without seams, in bounded memory."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.feature_objectives import energy
from fulgurite.probes.objectives import channel
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.gradients import tiled, whole
from fulgurite.probes.synthesis.optimizers import sgd, unit_mean


def stack(stride: int = 1) -> nn.Sequential:
    """Three convolutions that see 7 pixels a side, 13 with a stride."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 4, 3, stride, 1), nn.Softplus()]
    return nn.Sequential(*layers, nn.Conv2d(4, 3, 3, padding=1)).requires_grad_(False)


def squares(network: nn.Module):
    return lambda images: network(images).square().flatten(1).sum(1)


@pytest.mark.parametrize("size", [(40, 40), (41, 23), (16, 57), (12, 9), (16, 17)])
@pytest.mark.parametrize("seed", range(3))
def test_with_margins_as_wide_as_the_receptive_field_tiles_give_the_whole_gradient(size, seed):
    images = torch.rand(2, 2, *size)
    score = squares(stack())
    torch.manual_seed(seed)
    _, found = tiled(16, margin=6)(score, images)
    assert_close(found, whole(score, images)[1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_with_too_narrow_margins_seams_average_out():
    images = torch.rand(1, 2, 48, 48)
    score = squares(stack(2))
    exact = whole(score, images)[1]
    torch.manual_seed(0)
    errors = torch.stack([(tiled(16, margin=2)(score, images)[1] - exact)[0] for _ in range(300)])
    single = errors[0].abs().mean((0, 1))
    assert single.max() > 2 * single.mean()  # one laying of tiles has seams
    columns = errors.mean(0).abs().mean((0, 1))[8:-8]
    assert columns.max() < 2 * columns.mean()


def test_tiles_never_show_the_network_more_than_a_tile():
    shown = []
    network = stack()
    network.register_forward_pre_hook(lambda _, args: shown.append(args[0].shape))
    canvas = Pixels(torch.rand(1, 2, 50, 70))
    ascend(network, energy("2"), canvas, steps=2, gradient=tiled(20), by=sgd(0.01, normalise=unit_mean))
    assert {tuple(shape[2:]) for shape in shown} == {(20, 20)}


def test_images_no_larger_than_a_tile_are_looked_at_whole():
    images = torch.rand(2, 2, 16, 12)
    for found, expected in zip(
        tiled(16)(squares(stack()), images), whole(squares(stack()), images), strict=True
    ):
        assert torch.equal(found, expected)


def test_the_value_of_tiles_is_that_of_the_whole_where_it_is_an_average():
    images = torch.rand(2, 2, 33, 47)
    values, gradient = tiled(16, margin=4)(lambda images: images.flatten(1).mean(1), images)
    assert_close(values, images.flatten(1).mean(1), rtol=0.02, atol=0)
    assert_close(gradient, torch.full_like(images, 1 / 512))


def test_an_ascent_by_tiles_makes_the_image_that_the_whole_makes():
    start = 0.4 + 0.2 * torch.rand(2, 2, 40, 44)
    options = {"steps": 8, "by": sgd(0.01, normalise=unit_mean)}
    ways = (whole, tiled(24, margin=6))
    first, second = (ascend(stack(), energy(""), Pixels(start), gradient=way, **options) for way in ways)
    assert_close(second, first, rtol=0, atol=1e-5)
    assert not torch.equal(first, start)


def test_a_channel_by_tiles_rises():
    start = torch.rand(1, 2, 40, 44)
    options = {"steps": 5, "by": sgd(0.01, normalise=unit_mean), "gradient": tiled(16)}
    images = ascend(stack(2), channel("4", 1), Pixels(start), **options)
    before, after = (stack(2)(own)[:, 1].mean() for own in (start, images))
    assert after > before


@pytest.mark.parametrize(("side", "margin"), [(16, 8), (0, 0), (8, -1)])
def test_tiles_that_are_all_margin_are_refused(side, margin):
    with pytest.raises(ValueError, match=f"tiles of {side} pixels with margins of {margin}; wanted more"):
        tiled(side, margin=margin)
