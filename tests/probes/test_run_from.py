"""Logits of a network from given outputs of a layer on."""

import pytest
import torch
from torch import Tensor, nn

from fulgurite.probes.channels import features
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.record import record
from fulgurite.probes.run_from import run_from


class Skipping(nn.Module):
    """Its `inner` does not hold all: the image goes around it."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images + self.inner(images)).flatten(1)


class Counting(nn.Module):
    """It holds on to how many images there were."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3 * 64, 4)

    def forward(self, images: Tensor) -> Tensor:
        count = len(images)
        return self.head(torch.relu_(self.inner(images)).reshape(count, -1))


class Tokens(nn.Module):
    """A transformer of one layer, whose channels come last."""

    def __init__(self):
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.inner(images.reshape(len(images), 16, 12)).mean(1))


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(5, 3, 8, 8)


@pytest.mark.parametrize("kind", [Counting, Tokens])
def test_a_layers_own_outputs_give_the_networks_own_logits(kind, images: Tensor):
    torch.manual_seed(0)
    with frozen_eval(kind()) as network:
        with record(network, ["inner"]) as outputs:
            logits = network(images)
            own = features(outputs, "inner").detach()
        kept = own.clone()
        with run_from(network, "inner", images[:2]) as rest:
            torch.testing.assert_close(rest(own), logits)
            assert torch.equal(own, kept)  # an in-place ReLU follows
            torch.testing.assert_close(rest(own[[2, 2, 0]]), logits[[2, 2, 0]])
            torch.testing.assert_close(network(images), logits)  # a pass of its own is as before
        assert not network.inner._forward_hooks


def test_gradients_flow_to_the_values(images: Tensor):
    torch.manual_seed(0)
    with frozen_eval(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 3))) as network:
        values = torch.rand(2, 4, 8, 8, requires_grad=True)
        with run_from(network, "0", images[:2]) as rest:
            (slope,) = torch.autograd.grad(rest(values)[:, 1].sum(), values)
    torch.testing.assert_close(slope.flatten(1), network[2].weight[1].expand(2, -1))


def test_a_layer_that_is_bypassed_is_refused(images: Tensor):
    with frozen_eval(Skipping()) as network:
        with (
            pytest.raises(ValueError, match="do not follow from the output of 'inner' alone"),
            run_from(network, "inner", images[:2]),
        ):
            pass
        assert not network.inner._forward_hooks


def test_a_layer_that_runs_twice_is_refused(images: Tensor):
    one = nn.Conv2d(3, 3, 1)
    twice = nn.Sequential(one, nn.ReLU(), one, nn.Flatten())
    with (
        frozen_eval(twice) as network,
        pytest.raises(ValueError, match="runs more than once"),
        run_from(network, "0", images[:2]),
    ):
        pass
