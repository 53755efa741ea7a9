"""Every attribution method leaves the network and its training as they were."""

import copy
from contextlib import suppress

import numpy as np
import pytest
import torch
from every_method import IMAGES, OF_ANY_NETWORK, every_method, mapped, small
from torch import nn

from fulgurite.probes.objectives import channel, class_score


def state(network) -> dict:
    """All that a method must leave unchanged.

    Not Python's own random state, which beartype changes here: see tests/probes/test_frozen_eval.py.
    """
    hooks = ["_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"]
    return {
        "modes": [module.training for module in network.modules()],
        "hooks": [list(getattr(module, name).items()) for module in network.modules() for name in hooks],
        "frozen": [parameter.requires_grad for parameter in network.parameters()],
        "grads": [id(parameter.grad) for parameter in network.parameters()],
        "grad values": [None if p.grad is None else p.grad.tolist() for p in network.parameters()],
        "weights": [(id(p), p.stride(), p.tolist()) for p in network.parameters()],
        "buffers": [(id(buffer), buffer.tolist()) for buffer in network.buffers()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "grad mode": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled(),
        ),
        "default": torch.get_default_dtype(),
    }


class FailingError(Exception):
    pass


PASSES = []  # one for each; not the network's own, for what that holds is put back after each loan


class Counted(nn.Module):
    """Counts the passes, and fails in one of them."""

    def __init__(self, body):
        super().__init__()
        self.body, self.fails = body, 0

    def forward(self, images):
        PASSES.append(len(images))
        out = self.body(images)
        if len(PASSES) == self.fails:
            raise FailingError
        return out


def in_training() -> Counted:
    """Half frozen, with gradients accumulated, partly in training mode, with hooks."""
    body = small()
    body[1].eval().requires_grad_(False)
    body(IMAGES).sum().backward()
    body[4].register_forward_hook(lambda *_: None)
    return Counted(body)


@every_method
@pytest.mark.parametrize("fails", ["never", "first", "between", "last"])
def test_everything_is_restored(name, fails, monkeypatch):
    from fulgurite.probes import batches

    monkeypatch.setattr(batches, "MOST", 4)
    network = in_training()
    PASSES.clear()
    mapped(name, network)
    passes = len(PASSES)
    PASSES.clear()
    network.fails = {"never": 0, "first": 1, "between": (passes + 1) // 2, "last": passes}[fails]
    images = IMAGES.clone()
    before = state(network)
    with suppress(FailingError):
        mapped(name, network, images)
        assert fails == "never"
    after = state(network)
    assert [what for what in before if before[what] != after[what]] == []
    assert torch.equal(images, IMAGES)
    network.fails = 0
    assert torch.equal(mapped(name, network), mapped(name, in_training()))


@every_method
def test_an_error_leaves_everything_unchanged(name):
    network = in_training()
    before = state(network)
    for wrong in (class_score(17), channel("nowhere", 0), class_score(torch.tensor([0, 1])), []):
        with pytest.raises(
            ValueError,
            match=r"no class 17|no layer 'nowhere'|2 .* 3 images|for 2 images came with 3|no objective",
        ):
            mapped(name, network, objective=wrong)
    assert state(network) == before


def test_training_continues_as_without_the_probe():
    def trained(look: bool):
        torch.manual_seed(0)
        network = small()
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            network(torch.rand(4, 3, 14, 12)).logsumexp(1).sum().backward()
            for name in OF_ANY_NETWORK if look else ():
                mapped(name, network)
            optimizer.step()
        return [*network.parameters(), *network.buffers(), torch.rand(3)]

    assert all(torch.equal(one, other) for one, other in zip(trained(True), trained(False), strict=True))


@every_method
def test_a_copy_of_the_network_has_the_same_maps(name):
    network = small()
    mapped(name, network)
    assert torch.equal(mapped(name, copy.deepcopy(network)), mapped(name, network))
