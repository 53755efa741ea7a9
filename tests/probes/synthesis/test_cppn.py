"""Compositional pattern-producing networks as canvases."""

import pytest
import torch
from torch.testing import assert_close

from fulgurite.probes.feature_objectives import match
from fulgurite.probes.synthesis.after_step import clamp
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.cppn import CPPN
from fulgurite.probes.synthesis.optimizers import adam


def test_it_begins_plain_or_with_a_pattern_of_the_spread_asked_for():
    plain = CPPN((2, 5, 7), [0, 1], mean=[0.2, 0.7])()
    assert_close(plain, torch.tensor([0.2, 0.7])[None, :, None, None].expand(2, 2, 5, 7))
    patterns = CPPN((3, 32, 32), range(20), spread=1.0)()
    assert patterns.min() > 0
    assert patterns.max() < 1
    assert 0.4 < patterns.logit().flatten(1).std(1).mean() < 1.6


def test_the_same_image_at_another_size_is_the_same_function_of_position():
    small, large = CPPN((3, 20, 30), [3, 4], spread=1.0), CPPN((3, 60, 90), [0, 0], spread=1.0)
    large.put([0, 1], small)
    # the middle of each three pixels is where the small image has its pixel
    assert_close(large()[:, :, 1::3, 1::3], small(), rtol=0, atol=1e-5)


def test_each_image_has_a_network_of_its_own():
    together = CPPN((3, 8, 6), [4, 5, 4], spread=1.0)
    assert_close(together()[0], together()[2])
    assert (together()[0] - together()[1]).abs().mean() > 0.02
    assert_close(together.take([1])(), CPPN((3, 8, 6), [5], spread=1.0)())
    pixels = Pixels(torch.zeros(1, 3, 8, 6))
    pixels.put([0], together.take([1]))
    assert_close(pixels(), together()[1:2])


@pytest.mark.slow
def test_it_learns_a_disc():
    rows, columns = torch.arange(24.0)[:, None] - 11.5, torch.arange(24.0) - 11.5
    disc = (0.1 + 0.8 * (rows.square() + columns.square() < 50)).expand(2, 1, 24, 24)
    near = match("", disc)
    canvas = CPPN((1, 24, 24), [0, 1])
    images = ascend(torch.nn.Sequential(), near, canvas, steps=150, by=adam(0.01))
    assert (images - disc).abs().mean() < 0.05
    alone = ascend(torch.nn.Sequential(), match("", disc[1:]), CPPN((1, 24, 24), [1]), steps=5, precise=True)
    both = ascend(torch.nn.Sequential(), near, CPPN((1, 24, 24), [0, 1]), steps=5, precise=True)
    assert_close(both[1:], alone, rtol=0, atol=1e-4)


def test_it_cannot_be_set_to_images():
    canvas = CPPN((1, 8, 8), [0])
    with pytest.raises(ValueError, match="CPPN cannot be set to images; wanted Pixels or Fourier"):
        ascend(torch.nn.Sequential(), match("", torch.ones(1, 1, 8, 8)), canvas, steps=1, after=[clamp()])
    with pytest.raises(ValueError, match="a Pixels of other parameters to put on a CPPN"):
        canvas.put([0], Pixels(torch.zeros(1, 1, 8, 8)))
    with pytest.raises(ValueError, match=r"a mean for each of 1 channel,.* got \[0.1, 0.2\]"):
        CPPN((1, 8, 8), [0], mean=[0.1, 0.2])
