"""Adam, SGD, schedules and L-BFGS of images, each image by itself."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.objectives import Objective
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier, Pixels
from fulgurite.probes.synthesis.lbfgs import lbfgs
from fulgurite.probes.synthesis.optimizers import (
    adam,
    constant_rate,
    cosine_decay,
    linear_decay,
    sgd,
    unit_gradient,
    unit_length,
    unit_mean,
)

SHAPE = (3, 6, 6)
GRADIENTS = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)) - 0.4
EVERY = {
    "adam": adam(0.01),
    "sgd": sgd(0.01),
    "momentum": sgd(0.01, momentum=0.9, normalise=unit_mean),
    "unit_length": sgd(0.05, normalise=unit_length, schedule=cosine_decay),
    "lbfgs": lbfgs(),
}


def score(value) -> Objective:
    return Objective(frozenset({""}), lambda seen: value(seen[""]))


def start(count: int) -> torch.Tensor:
    return torch.full((count, *SHAPE), 0.5)


@pytest.mark.parametrize(
    ("normalise", "size"),
    [
        (unit_gradient, lambda own: own.square().mean().sqrt()),
        (unit_length, lambda own: own.norm()),
        (unit_mean, lambda own: own.abs().mean()),
    ],
    ids=["unit_gradient", "unit_length", "unit_mean"],
)
def test_a_normalised_gradient_has_its_size_and_its_direction(normalise, size):
    factors = torch.tensor([1e-5, 1.0, 1e5])[:, None, None, None]
    found = normalise(factors * GRADIENTS)
    assert_close(torch.stack([size(own) for own in found]), torch.ones(3))
    assert_close(found / found[:, :1, :1, :1], GRADIENTS / GRADIENTS[:, :1, :1, :1])
    assert torch.equal(normalise(0 * GRADIENTS), 0 * GRADIENTS)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_that_of_torch(momentum):
    goal = torch.rand(2, *SHAPE)
    pixels = nn.Parameter(start(2))
    optimizer = torch.optim.SGD([pixels], 0.02, momentum=momentum, maximize=True)
    for _ in range(10):
        optimizer.zero_grad()
        (-(pixels - goal).square() / 2).sum().backward()
        optimizer.step()
    near = score(lambda images: -(images - goal).square().flatten(1).sum(1) / 2)
    by = sgd(0.02, momentum=momentum)
    assert_close(ascend(nn.Identity(), near, Pixels(start(2)), steps=10, by=by), pixels.detach())


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (constant_rate, [1, 1, 1, 1]),
        (linear_decay, [1, 0.75, 0.5, 0.25]),
        (cosine_decay, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    ],
    ids=["constant", "linear", "cosine"],
)
def test_a_schedule_scales_each_step(schedule, rates):
    slope = score(lambda images: images.flatten(1).sum(1))
    images = ascend(nn.Identity(), slope, Pixels(start(1)), steps=4, by=sgd(0.02, schedule=schedule))
    assert_close(images - 0.5, torch.full_like(images, 0.02 * sum(rates)), rtol=0, atol=1e-6)


def test_a_dreams_step_is_its_rate_times_the_gradient_over_its_mean_absolute_value():
    weights = torch.rand(SHAPE) - 0.5
    slope = score(lambda images: 7 * (weights * images).flatten(1).sum(1))
    images = ascend(nn.Identity(), slope, Pixels(start(1)), steps=1, by=sgd(0.01, normalise=unit_mean))
    assert_close(images[0] - 0.5, 0.01 * weights / weights.abs().mean(), rtol=1e-4, atol=1e-6)


def valley(images: torch.Tensor) -> torch.Tensor:
    """Rosenbrock's, upside down, of neighbouring pixels around the middle of the range."""
    x = 4 * images.flatten(1) - 1
    return -(100 * (x[:, 1::2] - x[:, ::2].square()).square() + (1 - x[:, ::2]).square()).sum(1)


def test_lbfgs_gets_to_where_the_others_do_not():
    found = {}
    for name, by in EVERY.items():
        images = ascend(
            nn.Identity(), score(valley), Pixels(0.3 + 0.1 * torch.rand(2, *SHAPE)), steps=150, by=by
        )
        found[name] = valley(images)
    assert found["lbfgs"].min() > -1e-6
    assert max(values.max() for name, values in found.items() if name != "lbfgs") < -1e-3


def test_lbfgs_maximises_a_quadratic_of_many_curvatures_as_far_as_torchs_strong_wolfe():
    torch.manual_seed(0)
    goal = 0.3 + 0.4 * torch.rand(1, *SHAPE)
    curvature = 10 ** (4 * torch.rand(1, *SHAPE) - 2)
    cost = lambda images: (curvature * (images - goal).square()).flatten(1).sum(1)  # noqa: E731
    pixels, passes = nn.Parameter(start(1).double()), 200
    torchs = torch.optim.LBFGS(
        [pixels], max_iter=passes, max_eval=passes, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure():
        torchs.zero_grad()
        value = cost(pixels).sum()
        value.backward()
        return value

    torchs.step(closure)
    images = ascend(
        nn.Identity(),
        score(lambda images: -cost(images)),
        Pixels(start(1)),
        steps=passes,
        by=lbfgs(memory=20),
        precise=True,
    )
    assert cost(images) < 2 * cost(pixels) < 1e-5


def test_lbfgs_ends_at_the_top_of_the_box_where_the_top_is_outside():
    torch.manual_seed(0)
    goal = 3 * torch.rand(2, *SHAPE) - 1
    curvature = 10 ** (2 * torch.rand(2, *SHAPE) - 1)
    cost = lambda images: (curvature * (images - goal).square()).flatten(1).sum(1)  # noqa: E731
    images = ascend(
        nn.Identity(), score(lambda images: -cost(images)), Pixels(start(2)), steps=40, by=lbfgs()
    )
    assert (cost(images) - cost(goal.clamp(0, 1)) < 1e-5).all()
    assert_close(images, goal.clamp(0, 1), rtol=0, atol=0.01)


def test_lbfgs_survives_edges_and_never_ends_lower_than_it_began():
    goal = torch.rand(4, *SHAPE)
    edges = score(lambda images: -(images - goal).abs().flatten(1).sum(1))
    for steps in (0, 1, 2, 3, 5, 20, 60):
        images = ascend(nn.Identity(), edges, Pixels(start(4)), steps=steps, by=lbfgs())
        before, after = (-(own - goal).abs().flatten(1).sum(1) for own in (start(4), images))
        assert (after >= before).all()
    assert (after > 0.2 * before).all()


@pytest.mark.parametrize("by", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize(
    "make", [lambda seeds: Fourier(SHAPE, seeds), lambda seeds: Pixels(start(len(seeds)))]
)
def test_a_batch_equals_its_images_one_by_one(by, make):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Softplus(), nn.Flatten(), nn.Linear(80, 3)).eval()

    def value(classes):
        return score(lambda logits: logits.log_softmax(1)[torch.arange(len(logits)), classes])

    options = {"steps": 25, "by": by, "precise": True}
    together = ascend(network, value(torch.tensor([2, 0, 1])), make([4, 5, 6]), **options)
    for place, (label, seed) in enumerate([(2, 4), (0, 5), (1, 6)]):
        alone = ascend(network, value(torch.tensor([label])), make([seed]), **options)
        assert_close(together[place : place + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("by", EVERY.values(), ids=EVERY)
def test_an_image_without_finite_gradients_stays_and_harms_no_other(by):
    def value(images):
        mean = images.flatten(1).mean(1)
        return -(images - 0.7).square().flatten(1).sum(1) * torch.where(mean > 0.85, torch.nan, 1.0)

    images = torch.stack([torch.full(SHAPE, level) for level in (0.4, 0.9, 0.5)])
    with pytest.warns(UserWarning, match="^1 of 3 images met gradients that are not finite"):
        found = ascend(nn.Identity(), score(value), Pixels(images), steps=12, by=by)
    assert torch.equal(found[1], images[1])
    assert torch.equal(
        found[[0, 2]], ascend(nn.Identity(), score(value), Pixels(images[[0, 2]]), steps=12, by=by)
    )


def test_lbfgs_recovers_from_a_nan_objective():
    def value(images):
        return images.flatten(1).mean(1).where(images.flatten(1).amax(1) < 0.7, torch.nan)

    images = ascend(nn.Identity(), score(value), Pixels(start(1)), steps=30, by=lbfgs())
    assert images.min() == images.max()
    assert 0.69 < images.mean() < 0.7


def test_a_history_of_no_step_is_refused():
    with pytest.raises(ValueError, match="memory=0; wanted at least 1 step"):
        lbfgs(memory=0)


def test_the_first_trial_of_a_search_goes_no_further_than_the_longest():
    bowl = Objective(frozenset({""}), lambda seen: -(seen[""] - 0.8).square().flatten(1).sum(1))
    found = {}
    for longest in (math.inf, 0.01):
        for steps in (8, 60):
            start = Pixels(torch.full((2, 1, 4, 4), 0.2))
            images = ascend(nn.Identity(), bowl, start, steps=steps, by=lbfgs(longest=longest))
            found[longest, steps] = (images - 0.8).abs().max()
    assert found[math.inf, 8] < 1e-3
    assert found[0.01, 8] > 0.4
    assert found[0.01, 60] < 1e-3
