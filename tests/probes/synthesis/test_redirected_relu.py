"""Redirected ReLUs: a dead unit gets a gradient, and an active one is not affected."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.objectives import unit
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.optimizers import sgd
from fulgurite.probes.synthesis.redirected_relu import redirect


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
