"""Regularisers after each step, by hand."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attacks.threat import L2, Linf
from fulgurite.probes.objectives import Objective, class_score
from fulgurite.probes.synthesis.after_step import (
    Step,
    blur,
    clamp,
    clip_small_contributions,
    clip_small_norms,
    decay,
    gaussian,
    within,
)
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier, PhaseOnly, Pixels
from fulgurite.probes.synthesis.optimizers import cosine_decay, sgd, unit_length

ROWS = torch.arange(2)
IMAGES = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
SLOPE = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1)) - 0.5


def done(after, images=IMAGES, slope=SLOPE, number=1):
    return after(images, slope, Step(number, ROWS))


def test_clamp_cuts_off():
    assert torch.equal(done(clamp(0.2, 0.6)), IMAGES.clamp(0.2, 0.6))


def test_decay_moves_towards_the_background():
    background = [0.1, 0.2, 0.3]
    level = torch.tensor(background)[:, None, None]
    assert_close(done(decay(0.25, background=background)), 0.75 * IMAGES + 0.25 * level)


@pytest.mark.parametrize("number", range(1, 9))
def test_blur_is_applied_every_few_steps(number):
    found = done(blur(1.0, every=4), number=number)
    assert torch.equal(found, IMAGES) == (number % 4 != 0)


def test_a_gaussian_blur_spreads_a_point_as_far_as_its_sigma_and_keeps_the_mean():
    point = torch.zeros(1, 2, 41, 41)
    point[0, 1, 20, 20] = 1
    found = gaussian(point, 2.0)
    places = torch.arange(41.0) - 20
    assert_close(found.sum((2, 3)), torch.tensor([[0.0, 1.0]]))
    spread = (found[0, 1].sum(1) * places.square()).sum().sqrt()
    assert_close(spread, torch.tensor(2.0), rtol=0.03, atol=0)
    assert torch.equal(gaussian(torch.full((1, 1, 2, 1), 0.5), 3.0), torch.full((1, 1, 2, 1), 0.5))


def test_small_norms_become_the_background():
    found = done(clip_small_norms(0.25, background=[0.5]))
    norms = (IMAGES - 0.5).norm(dim=1)
    for image, before, norm in zip(found, IMAGES, norms, strict=True):
        gone = (image == 0.5).all(0)
        assert gone.sum() == 12  # a quarter of 48
        assert norm[gone].max() < norm[~gone].min()
        assert torch.equal(image[:, ~gone], before[:, ~gone])


def test_small_contributions_become_the_background():
    found = done(clip_small_contributions(0.5))
    parts = (IMAGES * SLOPE).sum(1).abs()
    for image, part in zip(found, parts, strict=True):
        gone = (image == 0).all(0)
        assert gone.sum() == 24
        assert part[gone].max() < part[~gone].min()


@pytest.mark.parametrize("after", [clip_small_norms, clip_small_contributions])
def test_a_share_of_nothing_clips_nothing(after):
    assert torch.equal(done(after(0.0)), IMAGES)
    with pytest.raises(ValueError, match=r"share=1\.5; wanted a share of the pixels"):
        after(1.5)


@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5)], ids=repr)
def test_on_a_linear_network_the_image_within_a_ball_is_known(threat, batch):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    start, classes = 0.4 + 0.2 * torch.rand(3, 3, 4, 4), torch.tensor([2, 0, 3])
    images = ascend(
        network,
        class_score(classes),
        Pixels(start),
        steps=40,
        by=sgd(0.3, normalise=unit_length, schedule=cosine_decay),
        after=[within(threat, start)],
        batch=batch,
    )
    slopes = network[1].weight[classes].detach().view_as(start)
    expected = start + threat.epsilon * (slopes.sign() if isinstance(threat, Linf) else threat.step(slopes))
    assert_close(images, expected, rtol=0, atol=2e-3)
    assert (threat.distance(images, start) <= threat.epsilon + 1e-6).all()


def test_what_comes_after_a_step_sees_it_and_its_gradient_in_turn():
    seen = []

    def note(images, gradient, step):
        seen.append((images.clone(), gradient.clone(), step.number, step.rows.tolist()))
        return images

    weights = torch.rand(3, 4, 4)
    slope = Objective(frozenset({""}), lambda seen: (weights * seen[""]).flatten(1).sum(1))
    half = lambda images, _gradient, _step: images / 2  # noqa: E731
    start = torch.full((2, 3, 4, 4), 0.2)
    images = ascend(nn.Identity(), slope, Pixels(start), steps=2, by=sgd(0.1), after=[half, note], batch=1)
    first = (0.2 + 0.1 * weights) / 2
    assert [(number, rows) for _, _, number, rows in seen] == [(1, [0]), (2, [0]), (1, [1]), (2, [1])]
    assert_close(seen[0][0][0], first)
    assert_close(seen[0][1][0], weights)
    assert_close(images[1], (first + 0.1 * weights) / 2)


def test_a_fourier_canvas_takes_part_and_phases_do_not_care_for_clamps():
    total = Objective(frozenset({""}), lambda seen: seen[""].flatten(1).sum(1))
    canvas = Fourier((3, 8, 8), [0, 1])
    images = ascend(nn.Identity(), total, canvas, steps=100, after=[clamp(0.3, 0.6)])
    assert images.min() > 0.29
    assert images.max() < 0.61
    assert images.mean() > 0.55
    phases = PhaseOnly((3, 8, 8), [0], torch.ones(3, 8, 5))
    assert ascend(nn.Identity(), total, phases, steps=2, after=[decay(0.1, background=[0.5])]).shape == (
        1,
        3,
        8,
        8,
    )
