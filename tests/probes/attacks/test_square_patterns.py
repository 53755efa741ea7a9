"""Perturbation patterns of the Square attack in L2 and L1."""

import math

import pytest
import torch
from torch.testing import assert_close

from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.square_patterns import move_pattern, pattern, tiled
from fulgurite.probes.attacks.threat import L1, L2


def slow_pattern(side, power):
    """The paper's formula, pixel by pixel: rings of 1 / (n + 1 - k)^2, summed up to the pixel's own."""
    shape = torch.zeros(side, side, dtype=torch.float64)
    for sign, first, height in ((1, 0, side // 2), (-1, side // 2, side - side // 2)):
        n = max(height, side) // 2
        for row in range(height):
            for column in range(side):
                own = n - max(abs(row - height // 2), abs(column - side // 2))
                shape[first + row, column] = sign * sum(1 / (n + 1 - k) ** 2 for k in range(own + 1))
    return (shape / shape.flatten().norm(p=power)).float()


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 9])
def test_patterns_are_the_papers(side, power):
    assert_close(pattern(side, power), slow_pattern(side, power))


@pytest.mark.parametrize("kind", [L2, L1])
def test_images_start_covered_with_patterns(kind):
    images = torch.rand(3, 2, 11, 13, generator=torch.Generator().manual_seed(0))
    shifts = tiled(images, kind(1, None), PerImageRandom(images)) - images
    assert (shifts[:, :, :10, :12].abs().sum((0, 1)) > 0).sum() > 100
    tiles = shifts[0, :, :10, :12].unfold(1, 2, 2).unfold(2, 2, 2).reshape(-1, 4).sign().int()
    assert len({tuple(tile) for tile in tiles.tolist()}) == 4  # either sign, either turn


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("kind", [L2, L1])
def test_a_pattern_takes_what_another_window_holds_and_what_is_left_of_the_radius(kind, share):
    threat = kind(1, None)
    random = torch.Generator().manual_seed(0)
    images = torch.rand(4, 2, 9, 9, generator=random)
    moved = threat.at(share).project(images + torch.randn(images.shape, generator=random), images)
    into, out_of = (slice(0, 3), slice(1, 4)), (slice(5, 8), slice(6, 9))
    signs = torch.tensor([1.0, -1.0])[:, None, None]
    after = move_pattern(moved, images, threat, into, out_of, signs, turned=False) - images
    before = moved - images
    assert_close(after[(..., *out_of)], torch.zeros(4, 2, 3, 3), rtol=0, atol=1e-6)
    elsewhere = torch.ones(9, 9, dtype=torch.bool)
    elsewhere[into] = elsewhere[out_of] = False
    assert_close(after[..., elsewhere], before[..., elsewhere], rtol=1e-4, atol=1e-6)
    power = 1 if kind is L1 else 2
    held, holds = before.abs() ** power, (after.abs() ** power)[(..., *into)]
    wanted = held[(..., *into)].sum((2, 3)) + held[(..., *out_of)].sum((2, 3)) + (1 - share**power) / 2
    assert_close(holds.sum((2, 3)), wanted, rtol=1e-4, atol=1e-6)


def test_a_pattern_on_nothing_is_the_pattern_itself_upright_or_turned():
    images, signs = torch.zeros(1, 2, 6, 6), torch.tensor([1.0, -1.0])[:, None, None]
    window, other = (slice(0, 5), slice(1, 6)), (slice(1, 6), slice(0, 5))
    for turned in (False, True):
        after = move_pattern(images, images, L2(2, None), window, other, signs, turned=turned)
        one = pattern(5, 2).T if turned else pattern(5, 2)
        assert_close(after[(0, ..., *window)], signs * one * 2 / math.sqrt(2))
