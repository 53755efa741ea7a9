"""Procedural shapes and textures: sizes, distinctness, positions."""

from itertools import combinations
from math import acos, pi, radians, sin, sqrt

import pytest
import torch

from fulgurite.data.procedural_shapes import LUMA, OUTLINES, TEXTURES, signals, tinted


def plane(reach=1.05, points=700):
    side = (torch.arange(points) + 0.5) / points * 2 * reach - reach
    return side.expand(1, points, points), side[:, None].expand(1, points, points)


def lens(first, second, apart):
    """What two discs share."""
    one = acos((apart**2 + first**2 - second**2) / (2 * apart * first))
    other = acos((apart**2 + second**2 - first**2) / (2 * apart * second))
    return first**2 * (one - sin(2 * one) / 2) + second**2 * (other - sin(2 * other) / 2)


AREAS = {
    "disc": pi * 0.8**2,
    "square": 2,
    "triangle": 3 * sqrt(3) / 4,
    "star": 5 * 0.45 * sin(radians(36)),
    "ring": pi * (0.9**2 - 0.5**2),
    "cross": 2 * 1.86 * 0.66 - 0.66**2,
    "heart": 0.78**2 * (2 + pi / 2),
    "crescent": pi * 0.95**2 - lens(0.95, 0.7, 0.55),
    "bar": 1.86 * 0.66,
    "frame": 1.4**2 - 0.76**2,
    "dome": pi * 0.9**2 / 2,
    "arrow": 0.95 * 0.76 + 0.5 * 0.9,
}


@pytest.mark.parametrize("name", OUTLINES)
def test_a_shape_has_its_area(name):
    x, y = plane()
    assert OUTLINES[name](x, y).float().mean() * 2.1**2 == pytest.approx(AREAS[name], rel=0.01)


@pytest.mark.parametrize("name", OUTLINES)
def test_a_shape_reaches_close_to_the_edge_of_the_unit_disc_and_not_beyond(name):
    x, y = plane()
    reach = torch.hypot(x, y)[OUTLINES[name](x, y)].max()
    assert 0.79 < reach <= 1


@pytest.mark.parametrize(("one", "other"), [*combinations(OUTLINES, 2)])
def test_no_shape_turned_is_another(one, other):
    x, y = plane(points=60)
    still = OUTLINES[one](x, y)
    for angle in torch.arange(0, 2 * pi, pi / 18):
        turned = OUTLINES[other](angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x)
        assert (still & turned).sum() < 0.85 * (still | turned).sum()


SHARES = {"plain": 0, "striped": 0.5, "checked": 0.5, "dotted": pi * 0.32**2}
SHARES |= {"shaded": 0.5, "grainy": 0.5, "cloudy": 0.5}


@pytest.mark.parametrize("name", SHARES)
def test_a_texture_has_its_share_of_the_second_colour(name):
    x, y = plane(reach=40, points=1013)
    assert TEXTURES[name](x, y).mean() == pytest.approx(SHARES[name], abs=0.01)


@pytest.mark.parametrize("name", TEXTURES)
def test_a_texture_lies_between_its_two_colours_and_uses_both(name):
    x, y = plane(reach=20)
    values = TEXTURES[name](x, y)
    assert values.shape == x.shape
    assert values.dtype == torch.float32
    assert values.min() == pytest.approx(0, abs=0.02)
    assert values.max() == pytest.approx(0 if name == "plain" else 1, abs=0.02)


@pytest.mark.parametrize("name", ["striped", "checked", "dotted", "shaded"])
def test_a_regular_texture_repeats(name):
    # these points are off the jumps; 8 is a period of each
    x, y = plane(reach=6.3, points=301)
    values = TEXTURES[name](x, y)
    torch.testing.assert_close(TEXTURES[name](x + 8, y + 8), values, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("one", "other"), [*combinations(TEXTURES, 2)])
def test_no_texture_is_another(one, other):
    x, y = plane(reach=4, points=100)
    assert (TEXTURES[one](x, y) - TEXTURES[other](x, y)).abs().mean() > 0.1


def test_grains_are_uniform_and_clouds_are_smooth():
    x, y = plane(reach=40, points=1000)
    grains, clouds = TEXTURES["grainy"](x, y), TEXTURES["cloudy"](x, y)
    assert grains.mean() == pytest.approx(0.5, abs=0.01)
    assert grains.std() == pytest.approx(1 / sqrt(12), abs=0.01)
    # the slope of 3t^2 - 2t^3 is at most 1.5; the points are 0.08 apart
    assert clouds.diff(dim=2).abs().max() <= 1.5 * 0.08 + 1e-4
    assert clouds.std() > 0.1


@pytest.fixture
def tints():
    torch.manual_seed(0)
    return torch.rand(500, 3)


def test_a_colour_has_the_luma_asked_for(tints):
    lumas = torch.linspace(0, 1, 500)
    colours = tinted(lumas, tints, channels=3)
    assert colours.min() >= -1e-6
    assert colours.max() <= 1 + 1e-6
    torch.testing.assert_close(colours @ torch.tensor(LUMA), lumas)
    torch.testing.assert_close(tinted(lumas, tints, channels=1), lumas[:, None])


def test_a_tint_of_the_luma_asked_for_is_the_colour(tints):
    torch.testing.assert_close(tinted(tints @ torch.tensor(LUMA), tints, channels=3), tints)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [2, 6, 96])
def test_no_two_classes_have_the_same_signal(classes, channels):
    colours = signals(classes, channels=channels)
    assert colours.shape == (classes, channels)
    assert len((colours * 255).round().unique(dim=0)) == classes
    assert colours.min() >= 0
    assert colours.max() <= 1


def test_signals_begin_with_red():
    torch.testing.assert_close(signals(3, channels=3), torch.eye(3))
