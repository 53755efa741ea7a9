"""Balls of Linf, L2 and L1: projections, steepest steps and samples."""

import math

import pytest
import torch
from scipy.optimize import minimize
from torch.testing import assert_close

from fulgurite.probes.attacks import projections
from fulgurite.probes.attacks.per_image_rng import PerImageRandom
from fulgurite.probes.attacks.threat import L1, L2, Linf

THREATS = [Linf(0.1), L2(0.8), L1(3.0), Linf(0.1, None), L2(0.8, None), L1(3.0, None)]
THREATS += [threat.at("8/255") for threat in THREATS[:3]] + [threat.at(0) for threat in THREATS[:3]]
PER_CHANNEL = ([0.0, -1.0, 0.2], torch.tensor([1.0, 1.5, 0.9]))


def images(count=6, channels=3, size=8):
    # some pixels exactly at the bounds, where half of the ball is out of bounds
    made = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1
    return made.clamp(0, 1)


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_what_is_drawn_or_projected_lies_within_ball_and_bounds(threat):
    clean = images()
    far = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for moved in (threat.sample(clean, PerImageRandom(clean)), threat.project(far, clean)):
        assert (threat.distance(moved, clean) <= threat.epsilon * (1 + 1e-6) + 6e-8).all()
        if threat.bounds is not None:
            assert moved.min() >= 0
            assert moved.max() <= 1


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_what_is_within_reach_stays_and_what_was_projected_stays_put(threat):
    clean = images()
    within = threat.sample(clean, PerImageRandom(clean))
    assert_close(threat.project(within, clean), within, rtol=0, atol=1e-6)
    far = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    once = threat.project(far, clean)
    assert_close(threat.project(once, clean), once, rtol=0, atol=1e-5)


@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.6), L1(0.9), L2(0.6, None), L1(0.9, None)], ids=repr)
def test_the_projection_is_the_nearest_point_of_ball_and_box(threat):
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        clean = torch.rand(1, 1, 2, 3, generator=generator).double()
        clean[0, 0, 0, 0] = 1.0
        far = clean + torch.randn(clean.shape, generator=generator).double()
        found = threat.project(far, clean)
        assert (found - far).square().sum() <= slow_projection(threat, far, clean) + 1e-5


def slow_projection(threat, far, clean):
    """The squared distance to the nearest point, by sequential quadratic programming."""
    target, origin = far.flatten().numpy(), clean.flatten().numpy()
    length = {
        "Linf": lambda s: abs(s).max(),
        "L2": lambda s: (s**2).sum() ** 0.5,
        "L1": lambda s: abs(s).sum(),
    }
    measure = length[type(threat).__name__]
    return minimize(
        lambda point: ((point - target) ** 2).sum(),
        0.9 * threat.project(far, clean).flatten().numpy() + 0.1 * origin,
        bounds=[(0, 1)] * 6 if threat.bounds else None,
        constraints=[{"type": "ineq", "fun": lambda point: threat.epsilon - measure(point - origin)}],
        method="SLSQP",
    ).fun


@pytest.mark.parametrize("threat", [Linf(0.3, None), L2(0.3, None), L1(0.3, None)], ids=repr)
def test_no_step_of_length_one_raises_a_linear_function_faster(threat):
    gradient = images(4) - 0.4
    step = L1(0.3, share=1e-9).step(gradient) if isinstance(threat, L1) else threat.step(gradient)
    assert_close(threat.length(step), torch.ones(4))
    dual = {"Linf": 1, "L2": 2, "L1": torch.inf}[type(threat).__name__]
    assert_close((step * gradient).flatten(1).sum(1), gradient.flatten(1).norm(p=dual, dim=1))


@pytest.mark.parametrize("threat", [Linf(1.0, None), L2(1.0, None), L1(1.0, None)], ids=repr)
def test_draws_fill_the_ball_evenly(threat):
    centre = torch.zeros(4000, 1, 2, 4)
    lengths = threat.length(threat.sample(centre, PerImageRandom(centre, torch.Generator().manual_seed(0))))
    # in d dimensions, the share of the ball within r is r^d
    for share in (0.1, 0.5, 0.9):
        assert abs(float((lengths < share ** (1 / 8)).float().mean()) - share) < 0.03
    # no side of the ball is preferred
    mean = threat.sample(centre, PerImageRandom(centre, torch.Generator().manual_seed(1))).mean(0)
    assert mean.abs().max() < 0.05


def test_a_zero_gradient_is_a_zero_step():
    for threat in THREATS[:3]:
        assert not threat.step(torch.zeros(2, 3, 4, 4)).any()


def test_bounds_may_be_given_for_each_channel():
    clean = torch.full((2, 3, 4, 4), 0.5)
    moved = Linf(2.0, PER_CHANNEL).project(clean + 5, clean)
    assert_close(moved[0, :, 0, 0], torch.tensor([1.0, 1.5, 0.9]))
    with pytest.raises(ValueError, match="3 channels, images with 1"):
        Linf(2.0, PER_CHANNEL).project(clean[:, :1], clean[:, :1])


@pytest.mark.parametrize(
    ("radius", "meant"), [(8, "8/255"), ("4", "4/255"), (1.5, "1.5/255"), (300, "8/255")]
)
def test_a_radius_of_bytes_is_refused_for_pixels_up_to_1(radius, meant):
    with pytest.raises(ValueError, match=rf"radius=.* turns any image .*\[0, 1\]; wanted such as {meant} or"):
        Linf(radius)
    with pytest.raises(ValueError, match="turns any image"):
        Linf(0.1).at(radius)
    for bounds in (None, (0, 255), PER_CHANNEL):
        assert Linf(radius, bounds).epsilon == float(radius)
    for large in (L2(radius), L1(radius)):
        assert large.epsilon == float(radius)
    assert Linf(1).epsilon == 1
    assert Linf(0.1).at(1e6).epsilon == 1e6  # no limit, for the nearest image


def test_radii_are_understood_as_people_write_them():
    assert Linf("8/255").epsilon == 8 / 255
    assert Linf(" 8 / 255 ") == Linf(8 / 255)
    assert Linf("0.5/255").epsilon == 0.5 / 255
    assert L2("0.5").at(2).radius == 2.0
    assert repr(L1("3", None)) == "L1(radius=3.0, bounds=None, share=0.05)"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Linf(-0.1), "at least 0"),
        (lambda: Linf("8/0"), "8/255"),
        (lambda: Linf("8/"), "8/255"),
        (lambda: Linf("1/2/3"), "8/255"),
        (lambda: L2(float("nan")), "finite"),
        (lambda: Linf("eight"), "8/255"),
        (lambda: Linf(0.1, (1.0, 0.0)), "lowest"),
        (lambda: Linf(0.1, ([0.0, 0.0], [1.0, 1.0, 1.0])), "channel"),
        (lambda: L1(1.0, share=0.0), "share"),
    ],
)
def test_a_threat_that_is_none_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_an_images_draws_depend_on_the_image_alone():
    clean = images()
    order = torch.tensor([3, 0, 5])
    together, some = PerImageRandom(clean).uniform(2, 2), PerImageRandom(clean[order]).uniform(2, 2)
    assert torch.equal(together[order], some)
    assert not torch.equal(PerImageRandom(clean, salt=1).uniform(2, 2), together)
    state = torch.get_rng_state()
    PerImageRandom(clean).normal(3)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_may_come_from_a_generator():
    clean = images()
    first, second = (PerImageRandom(clean, torch.Generator().manual_seed(seed)).uniform(5) for seed in (0, 1))
    assert torch.equal(first, PerImageRandom(clean, torch.Generator().manual_seed(0)).uniform(5))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("bounds", [([], []), (1, 0), (0, math.nan), ([0, 0], [1, 1, 1])])
def test_bounds_that_are_none_are_reported_in_one_sentence(bounds):
    with pytest.raises(ValueError, match="wanted the lowest and the highest value of a pixel"):
        Linf(0.1, bounds)


@pytest.mark.parametrize("bounds", [(0, 1), (0.3, 0.7), None], ids=str)
def test_the_two_ways_onto_an_l2_ball_within_bounds_are_one(bounds):
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(200, 2, 4, 4, generator=generator) * 0.4 + 0.3
    shifts = torch.randn(images.shape, generator=generator) * torch.rand(200, 1, 1, 1, generator=generator)
    low, high = (limit - images for limit in L2(1, bounds).limits(images))
    found = [
        factor(shifts, low, high, 0.8)
        for factor in (projections._factor_by_rounds, projections._factor_by_sorting)
    ]
    far = shifts.clamp(low, high).flatten(1).norm(dim=1) > 0.8
    assert far.sum() > 10
    assert_close(found[0][far], found[1][far], rtol=1e-5, atol=1e-6)
