"""RISE on linear networks, and as a plain loop over masks."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fulgurite.probes import batches
from fulgurite.probes.attribution import perturbations
from fulgurite.probes.attribution import rise as rise_file
from fulgurite.probes.attribution.rise import rise
from fulgurite.probes.counter_random import words
from fulgurite.probes.objectives import class_score, probability, unit

IMAGES = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))


def linear(pixels: int = 216) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 4))


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 4),
    )


@pytest.mark.parametrize("seen", [0.5, 0.2])
def test_on_a_linear_network_it_is_affine_in_weights_times_pixels(seen):
    """With a cell for each pixel, those next to it cancel: what remains is its own part, where it is seen."""
    network, images = linear(16), torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    ours = rise(network, images, class_score(2), masks=20_000, cells=4, keep_probability=seen, fill=0.1)
    expected = (1 - seen) * network[1].weight[2].detach().view(1, 1, 4, 4) * (images - 0.1)
    assert_close(ours, expected, rtol=0, atol=0.01)
    assert expected.abs().max() > 0.05


def test_it_is_affine_in_expectation_exactly(monkeypatch):
    """All masks of two by two pixels, each once, in place of random ones."""
    every = [
        torch.tensor(bits, dtype=torch.float).view(1, 2, 2) for bits in itertools.product([0, 1], repeat=4)
    ]
    masks = torch.stack(every)
    monkeypatch.setattr(rise_file, "_masks", lambda seed, numbers, *_: masks[numbers])
    network, images = linear(4), torch.rand(1, 1, 2, 2)
    ours = rise(network, images, class_score(1), masks=16, cells=2, fill=0.0)
    assert_close(ours.flatten(), 0.5 * network[1].weight[1].detach() * images.flatten(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fill", [0.2, "mean"])
def test_it_is_what_a_plain_loop_gives(fill):
    network, classes = convolutional().eval(), torch.tensor([2, 0])
    hidden = perturbations.filling(IMAGES, fill)
    masks = rise_file._masks(5, torch.arange(20), 3, 0.4, (9, 8))
    with torch.no_grad():
        scores = torch.stack(
            [network(mask * IMAGES + (1 - mask) * hidden)[torch.arange(2), classes] for mask in masks]
        )
    shown, weighted = sum(masks), sum(s[:, None, None, None] * m for s, m in zip(scores, masks, strict=True))
    expected = weighted / shown - scores.mean(0)[:, None, None, None]
    ours = rise(
        network, IMAGES, class_score(classes), masks=20, cells=3, keep_probability=0.4, fill=fill, seed=5
    )
    assert_close(ours, expected, rtol=1e-3, atol=1e-5)


def test_a_mask_is_a_grid_enlarged_from_somewhere_in_a_cell():
    masks = rise_file._masks(3, torch.arange(40), 4, 0.5, (20, 12))
    drawn = words(3, torch.arange(40), 27).double() / 2**32
    for mask, (top, left, *cells) in zip(masks, drawn.tolist(), strict=True):
        grid = (torch.tensor(cells).view(1, 1, 5, 5) < 0.5).float()
        large = F.interpolate(grid, size=(25, 15), mode="bilinear", align_corners=False)[0]
        top, left = int(5 * top), int(3 * left)
        assert torch.equal(mask, large[:, top : top + 20, left : left + 12])


@pytest.mark.parametrize("seen", [0.1, 0.5, 0.9])
def test_a_pixel_is_seen_as_often_as_asked(seen):
    masks = rise_file._masks(0, torch.arange(3000), 3, seen, (9, 8))
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert_close(masks.mean(0), torch.full((1, 9, 8), seen), rtol=0, atol=0.05)


def test_a_network_that_does_not_look_has_an_empty_map():
    network = linear()
    network[1].weight.data.zero_()
    assert_close(rise(network, IMAGES, class_score(1), masks=50), torch.zeros(2, 1, 9, 8), rtol=0, atol=1e-6)


def test_a_pixel_that_no_mask_showed_is_0():
    ours = rise(linear(), IMAGES, class_score(1), masks=2, cells=3, keep_probability=0.01)
    assert ours.isfinite().all()
    assert (ours == 0).any()


def test_the_pixel_that_is_looked_at_stands_out():
    network = linear()
    network[1].weight.data.zero_()
    network[1].weight.data.view(4, 3, 9, 8)[1, :, 2, 6] = 1
    ours = rise(network, torch.ones(1, 3, 9, 8), class_score(1), masks=500, cells=5, fill=0)
    row, column = divmod(int(ours.argmax()), 8)
    assert abs(row - 2) <= 1
    assert abs(column - 6) <= 1


@pytest.mark.parametrize("most", [1, 3, 7, 1000])
def test_it_does_not_matter_how_many_are_looked_at_together(most, monkeypatch):
    asked = [probability(torch.tensor([2, 0])), class_score(1), unit("0", 2)]
    expected = rise(convolutional(), IMAGES, asked, masks=20)
    monkeypatch.setattr(batches, "MOST", most)
    assert_close(rise(convolutional(), IMAGES, asked, masks=20), expected, rtol=1e-4, atol=1e-6)


def test_a_seed_is_a_draw_and_all_images_are_behind_the_same_masks():
    once, again, other = (
        rise(convolutional(), IMAGES, class_score(1), masks=10, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(once, again)
    assert not torch.allclose(once, other)
    same = rise(convolutional(), IMAGES[:1].expand(2, -1, -1, -1), class_score(1), masks=10)
    assert_close(same[0], same[1])


WRONG = [{"masks": 1}, {"cells": 0}, {"keep_probability": 0.0}, {"keep_probability": 1.0}]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted two masks, one cell, and a keep_probability"):
        rise(linear(), IMAGES, class_score(0), **wrong)


@pytest.mark.parametrize("cells", [1, 8, 20])
def test_cells_may_be_one_or_more_than_pixels(cells):
    assert rise(linear(), IMAGES, class_score(0), masks=4, cells=cells).isfinite().all()
