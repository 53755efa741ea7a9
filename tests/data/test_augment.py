"""Shifts and noise of batches."""

from functools import partial

import pytest
import torch

from fulgurite.data.augment import cropped, flipped, noisy, shifted

EVERY = [
    partial(shifted, by=3),
    partial(shifted, by=3, fill="border"),
    partial(noisy, spread=0.5),
    flipped,
    partial(cropped, padding=3),
]
NAMES = ["shifted", "shifted in border", "noisy", "flipped", "cropped"]


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(40, 3, 12, 16)


@pytest.fixture
def same():
    """Forty copies of one image, white as far as images can be."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, 12, 16)
    image[..., 4:8, 4:8] = 1
    return image.expand(40, -1, -1, -1)


@pytest.mark.parametrize("change", EVERY, ids=NAMES)
def test_changed_images_are_images_of_the_same_shape(change, images):
    changed = change(images)
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize("change", EVERY, ids=NAMES)
def test_white_stays_within_bounds(change):
    assert change(torch.ones(64, 1, 32, 32)).max() <= 1


@pytest.mark.parametrize("change", EVERY, ids=NAMES)
def test_every_image_draws_for_itself(change, same):
    changed = change(same)
    assert len(changed.flatten(1).unique(dim=0)) > 1
    assert not torch.equal(change(same), changed)


@pytest.mark.parametrize("change", EVERY, ids=NAMES)
def test_the_global_seed_repeats_the_draws(change, images):
    torch.manual_seed(3)
    once = change(images)
    torch.manual_seed(3)
    assert torch.equal(change(images), once)


@pytest.mark.parametrize("change", EVERY, ids=NAMES)
def test_the_originals_are_left_alone(change, images):
    before = images.clone()
    change(images)
    assert torch.equal(images, before)


def test_a_shifted_ramp_changes_by_the_same_amount_everywhere_inside():
    ramp = (torch.arange(16.0) / 32 + 0.2).expand(30, 1, 12, 16)
    difference = (shifted(ramp, by=2) - ramp)[..., 3:-3, 3:-3].flatten(1)
    assert torch.allclose(difference, difference[:, :1].expand_as(difference), atol=1e-5)
    assert difference.abs().max() <= 2 / 32 + 1e-5
    assert difference[:, 0].std() > 0.01


def test_a_shift_keeps_a_distant_spot_whole_and_moves_both_ways():
    spot = torch.zeros(200, 1, 15, 15)
    spot[..., 7, 7] = 1
    moved = shifted(spot, by=3)
    assert torch.allclose(moved.sum((1, 2, 3)), torch.ones(200), atol=1e-4)
    columns = (moved * torch.arange(15)).sum((1, 2, 3))
    rows = (moved * torch.arange(15)[:, None]).sum((1, 2, 3))
    for places in (columns, rows):
        assert 4 - 1e-3 <= places.min() < 5
        assert 9 < places.max() <= 10 + 1e-3


def test_a_shift_lets_in_black_or_the_border():
    white = torch.ones(50, 1, 8, 8)
    assert shifted(white, by=3).min() == 0
    assert torch.allclose(shifted(white, by=3, fill="border"), white)


def test_noise_strength_differs_by_image_up_to_the_spread():
    grey = torch.full((500, 1, 20, 20), 0.5)
    strengths = (noisy(grey, spread=0.1) - grey).std((1, 2, 3))
    assert strengths.max() < 0.12
    assert strengths.min() < 0.01
    assert abs(strengths.mean() - 0.05) < 0.005


def test_each_image_is_mirrored_or_not(images):
    mirrored = flipped(images)
    same = (mirrored == images).flatten(1).all(1)
    turned = (mirrored == images.flip(-1)).flatten(1).all(1)
    assert (same ^ turned).all()
    assert 5 < same.sum() < 35


def test_a_crop_is_a_window_of_the_reflected_image(images):
    padded = torch.nn.functional.pad(images, [2, 2, 2, 2], mode="reflect")
    for image, window in zip(padded, cropped(images, padding=2), strict=True):
        assert any(torch.equal(window, image[:, y : y + 12, x : x + 16]) for y in range(5) for x in range(5))


def test_padding_beyond_the_image_is_refused(images):
    with pytest.raises(ValueError, match="12 x 16 image"):
        cropped(images, padding=12)
