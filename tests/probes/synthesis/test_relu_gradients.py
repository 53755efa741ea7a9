"""Redirected and leaky ReLUs: a dead unit gets a gradient, and an active one is not affected."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.objectives import unit
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.optimizers import sgd
from fulgurite.probes.synthesis.relu_gradients import leak, redirect


class Spelt(nn.Module):
    """Two dead units of four: w x - 1, on one channel; the ReLU is spelt in its own way."""

    def __init__(self, relu):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.linear.weight.data = torch.diag(torch.tensor([1.0, 2.0, 3.0, -1.0]))
        self.linear.bias.data = torch.tensor([-1.0, -2.0, 1.0, 1.0])
        self.relu = relu

    def forward(self, images):
        return self.relu(self.linear(images.flatten(1)))


SPELT = [nn.ReLU(), nn.ReLU(inplace=True), F.relu, lambda x: x.clamp(min=0), lambda x: F.threshold(x, 0, 0)]


@pytest.mark.parametrize("relu", SPELT)
def test_the_gradient_passes_where_all_is_dead_and_only_upwards(relu):
    images = torch.full((4, 1, 2, 2), 0.5, requires_grad=True)
    out = Spelt(relu)(images)
    # upwards at a dead unit; downwards at one; at two of which one is alive; at a living one alone
    weights = torch.tensor([[2.0, 0, 0, 0], [0, -1, 0, 0], [5, 0, 1, 0], [0, 0, -1, 0]])
    (slope,) = torch.autograd.grad(redirect((weights * out).sum(1)).sum(), images)
    expected = torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 3, 0], [0, 0, -3, 0]])
    assert_close(slope.flatten(1), expected)


@pytest.mark.parametrize("steps", [16, 3])
def test_a_dead_unit_comes_to_life_in_the_first_steps_alone(steps):
    network, start = Spelt(nn.ReLU(inplace=True)), torch.full((1, 1, 2, 2), 0.5)
    dead = ascend(network, unit("relu", 1), Pixels(start), steps=16, by=sgd(0.01))
    assert torch.equal(dead, start)
    moved = ascend(network, unit("relu", 1), Pixels(start), steps=16, by=sgd(0.01), redirected=steps)
    # each redirected step is 0.01 times the weight
    assert_close(moved.flatten(), torch.tensor([0.5, 0.5 + 0.02 * steps, 0.5, 0.5]))


def test_what_is_alive_does_not_feel_it():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.ReLU())
    start = torch.rand(2, 3, 8, 8)
    one, other = (
        ascend(network, unit("2", 1), Pixels(start), steps=4, redirected=redirected) for redirected in (0, 4)
    )
    assert torch.equal(one, other)
    assert not any(module._backward_hooks or module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("relu", SPELT)
def test_a_leaky_gradient_is_that_of_a_leaky_network_and_the_values_are_the_networks(relu):
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (plain, weights), leaky = (Spelt(relu)(images), torch.tensor([2.0, -1, 3, 1])), nn.LeakyReLU(0.1)
    values = leak((weights * plain).sum(1), 0.1)
    assert_close(values, (weights * Spelt(relu)(images)).sum(1))
    (slope,) = torch.autograd.grad(values.sum(), images)
    (expected,) = torch.autograd.grad((weights * Spelt(leaky)(images)).sum(), images)
    assert 0 < (plain == 0).sum() < plain.numel()
    assert_close(slope, expected)


def test_a_leaky_ascent_moves_dead_units_by_the_leak():
    network, start = Spelt(nn.ReLU(inplace=True)), torch.full((1, 1, 2, 2), 0.5)
    moved = ascend(network, unit("relu", 1), Pixels(start), steps=3, by=sgd(0.01), relu_leak=0.25)
    assert_close(moved.flatten(), torch.tensor([0.5, 0.5 + 3 * 0.25 * 0.02, 0.5, 0.5]))
    first = ascend(
        network, unit("relu", 1), Pixels(start), steps=3, by=sgd(0.01), redirected=2, relu_leak=0.25
    )
    assert_close(first.flatten(), torch.tensor([0.5, 0.5 + (2 + 0.25) * 0.02, 0.5, 0.5]))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_leak_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=r"relu_leak=.*at least 0"):
        ascend(Spelt(nn.ReLU()), unit("relu", 1), Pixels(torch.zeros(1, 1, 2, 2)), steps=1, relu_leak=share)
