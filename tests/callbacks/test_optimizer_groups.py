"""The groups of an optimiser by name, and the lengths of their gradients."""

import pytest
import torch
from torch import nn

from fulgurite.callbacks.optimizer_groups import GradientNorms, optimizer_groups


def test_what_is_in_no_group_does_not_learn():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(network[1].parameters(), 0.1)
    found = optimizer_groups([optimizer], network, GradientNorms())
    assert (found["group 0"].lr, found["group 0"].frozen, found["group 0"].weights) == (0.1, 0, 6)
    assert (found["in no group"].lr, found["in no group"].frozen, found["in no group"].weights) == (0, 1, 6)
    assert optimizer_groups([], network, GradientNorms()) == {}


def test_a_group_marked_frozen_is_frozen_even_if_its_weights_have_gradients():
    network = nn.Linear(2, 2)
    own = {"params": [*network.parameters()], "frozen": True, "name": "all"}
    optimizer = torch.optim.SGD([own], 0.1)
    network(torch.ones(1, 2)).sum().backward()
    pulls = GradientNorms()
    pulls.read([optimizer], optimizer)
    assert (optimizer_groups([optimizer], network, pulls)["all"].lr, pulls.of("all")) == (0, None)
    optimizer.param_groups[0]["frozen"] = False
    pulls.read([optimizer], optimizer)
    assert optimizer_groups([optimizer], network, pulls)["all"].lr == 0.1
    assert pulls.of("all") == pytest.approx(6**0.5)


def test_groups_with_the_same_name_get_distinct_names():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizers = [
        torch.optim.SGD([{"params": [*part.parameters()], "name": "part"}], 0.1) for part in network
    ]
    assert list(optimizer_groups(optimizers, network, GradientNorms())) == ["part (0)", "part (1)"]
    network(torch.ones(1, 2)).sum().backward()
    pulls = GradientNorms()
    pulls.read(optimizers, optimizers[0])
    assert pulls.of("part (0)") is not None
    assert pulls.of("part (1)") is None


def test_a_step_that_overflows_does_not_count():
    network = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    pulls = GradientNorms()
    for value in (3.0, float("inf"), 3.0):
        network.weight.grad = torch.full((1, 1), value)
        pulls.read([optimizer], optimizer)
    assert pulls.of("group 0") == pytest.approx((18 / 3) ** 0.5)
