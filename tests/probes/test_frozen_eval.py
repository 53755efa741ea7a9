"""`frozen_eval` restores everything: modes, gradients, buffers, hooks, random states."""

import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.hooks import RemovableHandle

from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.frozen_eval import frozen_eval, same_randomness
from fulgurite.probes.objectives import class_score
from fulgurite.probes.predict import predict

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    """Keeps a count in a buffer that it assigns again, as many moving averages do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, images):
        self.passes = self.passes + 1
        return images


def training_network() -> nn.Sequential:
    """In training, with a frozen part, gradients accumulated, and statistics that have moved."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        Counting(),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(144, 3),
    )
    network.train()
    network[5].eval().requires_grad_(False)
    network[0].bias.requires_grad_(False)
    network(IMAGES).sum().backward()
    network[0].register_forward_hook(lambda *_: None)
    return network


def everything(network) -> dict:
    """All that a loan must hand back, values by value and objects by identity."""
    names = ["_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"]
    return {
        "modes": [module.training for module in network.modules()],
        "hooks": [list(getattr(module, name).items()) for module in network.modules() for name in names],
        "frozen": [parameter.requires_grad for parameter in network.parameters()],
        "grads": [id(parameter.grad) for parameter in network.parameters()],
        "grad values": [None if p.grad is None else p.grad.tolist() for p in network.parameters()],
        "buffers": [(id(buffer), buffer.tolist()) for buffer in network.buffers()],
        "weights": [parameter.tolist() for parameter in network.parameters()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
    }


def misuse(network):
    """What a careless probe may do to a network."""
    network.train()
    network(IMAGES)
    network.requires_grad_(True)
    network.zero_grad()
    network(IMAGES).sum().backward()
    network[0].register_forward_hook(lambda *_: None)
    network[1].register_forward_pre_hook(lambda *_: None)
    network[2].register_full_backward_hook(lambda *_: None)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("use", [lambda network: network(IMAGES), misuse], ids=["fair", "careless"])
def test_everything_is_restored(use, failing):
    network = training_network()
    loan = frozen_eval(network, mean=[0.5] * 3, std=[0.2] * 3)  # beartype draws numbers here
    before = everything(network)
    with suppress(ZeroDivisionError), loan as net:
        use(net)
        if failing:
            raise ZeroDivisionError
    after = everything(network)
    assert [what for what in before if before[what] != after[what]] == []


def test_a_network_in_frozen_eval_is_in_eval_mode_and_frozen():
    network = training_network()
    with frozen_eval(network) as net:
        assert net is network
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())


def test_a_network_in_two_contexts_is_restored_twice():
    network = training_network()
    loan = frozen_eval(network, mean=[0.5] * 3)
    before = everything(network)
    with loan as outer:
        once = outer(IMAGES)
        with frozen_eval(outer) as inner:
            assert torch.equal(inner(IMAGES), once)
        assert not network.training
        assert torch.equal(outer(IMAGES), once)
    assert everything(network) == before


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_gradients_can_be_taken_where_they_are_switched_off(mode):
    network, objective = training_network(), class_score(1)
    expected = gradient(network, IMAGES, objective)
    with mode():
        images = IMAGES * 1
        assert torch.equal(gradient(network, images, objective), expected)
        assert not torch.is_grad_enabled()


def test_autocast_is_suspended():
    network = training_network().eval()
    expected = predict(network, IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        network(IMAGES)
        assert torch.equal(predict(network, IMAGES), expected)
        assert network(IMAGES).dtype == torch.bfloat16


def test_normalisation_is_put_in_front():
    network, mean, std = training_network(), [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    by_hand = (IMAGES - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with frozen_eval(network, mean=mean, std=std) as net:
        normalised = net(IMAGES)
    assert_close(normalised, predict(network, by_hand))


def test_a_network_that_works_in_place_leaves_the_images_alone():
    class Grasping(nn.Module):
        def forward(self, images):
            images -= 0.5
            return images.flatten(1)

    images = IMAGES.clone()
    assert_close(predict(Grasping(), images), IMAGES.flatten(1) - 0.5)
    assert torch.equal(images, IMAGES)
    assert gradient(Grasping(), images, class_score(0)).sum() == 2


def test_bytes_are_no_images():
    with (
        frozen_eval(training_network()) as net,
        pytest.raises(ValueError, match=r"got torch\.uint8; divide bytes"),
    ):
        net((IMAGES * 255).byte())


def test_a_frozen_network_has_gradients_too():
    network = training_network()
    expected = gradient(network, IMAGES, class_score(0))
    assert expected.abs().sum() > 0
    assert torch.equal(gradient(network.requires_grad_(False), IMAGES, class_score(0)), expected)


def test_randomness_is_the_same_after_the_block():
    before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    with suppress(ZeroDivisionError), same_randomness(torch.device("cpu")):
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]


def test_a_backward_pass_within_the_block_leaves_the_gradients_as_they_were():
    network = nn.Linear(3, 2)
    network(torch.rand(4, 3)).sum().backward()
    grad = network.weight.grad
    before = grad.clone()
    with frozen_eval(network) as net:
        net.requires_grad_()
        net(torch.rand(4, 3)).sum().backward()
        assert not torch.equal(net.weight.grad, before)
    assert network.weight.grad is grad
    assert torch.equal(grad, before)


def test_channels_last_is_an_order_of_weights_in_the_context_alone():
    network = training_network().eval()
    network[0].weight.data.mul_(3)
    tied = nn.Conv2d(4, 4, 1)
    network.append(nn.Unflatten(1, (3, 1, 1))).append(nn.Conv2d(3, 4, 1)).append(tied).append(tied)
    weights = [(p, p.stride(), p.clone()) for p in network.parameters()]
    expected = network(IMAGES)
    with suppress(RuntimeError), frozen_eval(network, channels_last=True) as net:
        assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
        assert net[10].weight is net[11].weight
        assert not net[0].weight.requires_grad
        assert_close(net(IMAGES), expected.detach())
        raise RuntimeError
    for parameter, (before, stride, value) in zip(network.parameters(), weights, strict=True):
        assert parameter is before
        assert parameter.stride() == stride
        assert torch.equal(parameter, value)


def test_hooks_of_a_network_that_was_saved_whole_hold_in_the_context_and_after_it(monkeypatch):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    hook = network.register_forward_pre_hook(lambda _, inputs: (inputs[0] + 1,))
    images = torch.rand(2, 3, 2, 2)
    expected = network(images)
    # in a new process the numbers of hooks start again
    monkeypatch.setattr(RemovableHandle, "next_id", hook.id)
    with frozen_eval(network) as net:
        assert torch.equal(net(images), expected)
    assert torch.equal(network(images), expected)
    assert list(network._forward_pre_hooks) == [hook.id]


@pytest.fixture(params=["compared", "written back together, as on a GPU"])
def buffers(request, monkeypatch):
    if request.param != "compared":
        monkeypatch.setattr("fulgurite.probes.frozen_eval.AT_HAND", set())


@pytest.mark.parametrize("write", ["in place", "through .data", "by BatchNorm", "anew"])
@pytest.mark.usefixtures("buffers")
def test_buffers_are_restored_however_they_are_written_and_stay_where_they_are(write):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3), Counting()).train()
    norm = network[0]
    before = [(b, b.clone(), b.data_ptr(), b._version) for b in network.buffers()]
    with frozen_eval(network, modes="unchanged"):
        if write == "in place":
            norm.running_mean.add_(1)
        elif write == "through .data":
            norm.running_mean.data.add_(1)
        elif write == "anew":
            norm.running_mean = torch.ones(3)
        else:
            norm(torch.rand(4, 3, 5, 5))
        assert not torch.allclose(norm.running_mean, before[0][1])
    for (buffer, values, address, version), now in zip(before, network.buffers(), strict=True):
        assert buffer is now
        assert torch.equal(buffer, values)
        assert buffer.data_ptr() == address
        if all(buffer is not own for own in norm.buffers()):
            assert buffer._version == version


@pytest.mark.usefixtures("buffers")
def test_a_graph_that_has_saved_a_buffer_can_go_back_after_the_context():
    network = nn.Sequential(nn.BatchNorm2d(3)).eval()
    loss = network(IMAGES).square().sum()
    with frozen_eval(network) as own:
        own(IMAGES)
    loss.backward()


@pytest.mark.usefixtures("buffers")
def test_a_buffer_in_memory_of_numpy_is_restored_too():
    network, mine = nn.BatchNorm2d(3), np.zeros(3, np.float32)
    network.running_mean = torch.from_numpy(mine)
    with frozen_eval(network):
        network.running_mean.add_(1)
    assert mine.tolist() == [0, 0, 0]


def test_on_a_gpu_the_context_asks_no_buffer_for_its_values(monkeypatch):
    """Each such question would wait for the device."""
    monkeypatch.setattr("fulgurite.probes.frozen_eval.AT_HAND", set())
    monkeypatch.setattr(torch, "equal", None)
    with frozen_eval(training_network()) as network:
        network(IMAGES)
