"""Outputs of layers without the layers after them."""

import copy
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from fulgurite.probes.batches import ran_out_of_memory
from fulgurite.probes.feature_extractor import Calls, feature_extractor
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.meta_copy import meta_copy
from fulgurite.probes.record import layers_of, record

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    """One convolution and one ReLU, both called twice, then a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.head = nn.Conv2d(3, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1)

    def forward(self, images):
        for _ in range(2):
            images = self.relu(self.conv(images))
        return self.head(images).mean((2, 3))


class Refusing(Twice):
    """Its head takes images of 32 x 32 alone, after an auxiliary head that takes any."""

    def __init__(self, error: type[Exception] | None = None):
        super().__init__()
        self.last, self.error = nn.Linear(2 * 28 * 28, 3), error

    def forward(self, images):
        for _ in range(2):
            images = self.relu(self.conv(images))
        if self.error and images.shape[2] != 28:
            raise self.error("the head refuses")
        return self.last(self.head(images).flatten(1))


class Asking(Twice):
    """Its forward pass depends on a value, which shapes alone do not tell."""

    def forward(self, images):
        return super().forward(images if float(images.detach().mean()) > -1 else -images)


class WithFunctions(nn.Module):
    """Holds a plain tensor, a list and a dict that a pass keeps something in, and a recurrent layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.lines, self.head = nn.Conv2d(3, 4, 3), nn.LSTM(30, 5), nn.Linear(5, 2)
        self.scale, self.kept, self.seen = torch.tensor(2.0), {}, []

    def forward(self, images):
        maps = F.relu(self.conv(images)) * self.scale
        self.kept["maps"] = maps
        self.seen.append(maps.mean())
        return self.head(self.lines(maps.mean(1).transpose(0, 1))[0][-1])


def passed(network: nn.Module) -> list[str]:
    """The layers that run from now on, by their names, as they begin."""
    begun = []
    for name, module in network.named_children():
        module.register_forward_pre_hook(lambda _m, _i, name=name: begun.append(name))
    return begun


@pytest.mark.parametrize("failing", [False, True])
def test_no_hook_outlives_its_block(failing):
    network = Twice()
    with suppress(ZeroDivisionError), feature_extractor(network, ["conv", "relu"]) as read:
        read(IMAGES)
        if failing:
            raise ZeroDivisionError
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("network", [Twice(), Asking(), Refusing()], ids=lambda net: type(net).__name__)
@pytest.mark.parametrize("layers", [[""], ["conv"], ["relu"], ["head"], ["relu", "conv"]], ids=str)
def test_reading_equals_recording_on_every_pass(network, layers):
    with feature_extractor(network, layers) as read:
        passes = [read(IMAGES) for _ in range(3)]
    with record(network, layers) as seen:
        network(IMAGES)
    assert all(list(values) == list(seen) for values in passes)
    assert all(torch.equal(values[layer], seen[layer]) for values in passes for layer in layers)


def test_reading_runs_no_layer_after_the_last_it_reads_not_even_at_first():
    network = Twice()
    begun = passed(network)
    with feature_extractor(network, ["conv"]) as read:
        for _ in range(2):
            read(IMAGES)
            assert begun == ["conv", "relu", "conv"]
            begun.clear()


def test_where_shapes_do_not_tell_the_first_pass_runs_in_full():
    network = Asking()
    begun = passed(network)
    with feature_extractor(network, ["conv"]) as read:
        read(IMAGES)
        assert begun == ["conv", "relu", "conv", "relu", "head"]
        begun.clear()
        read(IMAGES)
        assert begun == ["conv", "relu", "conv"]


@pytest.mark.parametrize("side", [16, 32, 48])
@pytest.mark.parametrize("error", [None, KeyError])
def test_a_size_that_the_head_refuses_is_no_obstacle_to_an_early_layer(side, error):
    network, images = Refusing(error), torch.rand(2, 3, side, side)
    expected = F.relu(network.conv(F.relu(network.conv(images))))
    with feature_extractor(network, ["relu"]) as read:
        for _ in range(2):
            assert torch.equal(read(images)["relu"], expected)
        assert read(IMAGES)["relu"].shape == (2, 3, 28, 28)


def test_what_was_learnt_of_a_size_that_is_refused_is_not_assumed_of_others():
    class Early(Twice):
        """Calls its convolution a second time, which refuses small images."""

        def forward(self, images):
            maps = self.conv(images)
            if maps.shape[2] < 20:
                raise ValueError("too small")
            return self.conv(maps).mean((2, 3))

    network = Early()
    small = torch.rand(2, 3, 16, 16)
    with feature_extractor(network, ["conv"]) as read:
        assert torch.equal(read(small)["conv"], network.conv(small))
        assert torch.equal(read(IMAGES)["conv"], network.conv(network.conv(IMAGES)))
        assert torch.equal(read(small)["conv"], network.conv(small))


def test_a_layer_behind_the_one_that_refuses_is_not_read():
    with feature_extractor(Refusing(), ["last"]) as read, pytest.raises(RuntimeError, match="shapes"):
        read(IMAGES[:, :, :16])
    with feature_extractor(Refusing(KeyError), ["relu", "head"]) as read, pytest.raises(KeyError):
        read(IMAGES[:, :, :16])


def test_memory_that_runs_out_behind_the_layer_is_not_passed_over():
    class Greedy(Asking):
        def forward(self, images):
            super().forward(images)
            raise torch.OutOfMemoryError

    with feature_extractor(Greedy(), ["conv"]) as read, pytest.raises(torch.OutOfMemoryError):
        read(IMAGES)


def test_a_layer_that_does_not_run_is_reported():
    network = Twice()
    network.spare = nn.Linear(2, 2)
    with feature_extractor(network, ["conv", "spare"]) as read:
        seen = read(IMAGES)
        with pytest.raises(ValueError, match="nothing was read from layer 'spare'"):
            seen["spare"]


def test_what_is_learnt_can_be_handed_on(monkeypatch):
    counts, network = Calls(), Twice()
    with feature_extractor(network, ["conv"], counts=counts) as read:
        read(IMAGES)
    assert counts.every == 2
    monkeypatch.setattr("fulgurite.probes.feature_extractor.meta_copy", None)
    begun = passed(network)
    with feature_extractor(network, ["conv"], counts=counts) as read:
        read(IMAGES)
    assert begun == ["conv", "relu", "conv"]


def test_to_learn_the_calls_leaves_the_network_and_random_states_alone():
    network, reported = WithFunctions().train(), []
    network.drop = nn.Dropout()
    network.conv.register_forward_hook(lambda _m, _i, out: reported.append(out))
    state, held = torch.get_rng_state(), {name: id(value) for name, value in vars(network).items()}
    with feature_extractor(network, ["conv"]) as read:
        read(IMAGES)
    assert len(reported) == 1
    assert not reported[0].is_meta
    assert not network.kept
    assert not network.seen
    assert held == {name: id(value) for name, value in vars(network).items()}
    assert torch.equal(state, torch.get_rng_state())


NETWORKS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=2),
    "squeezenet": lambda: torchvision.models.squeezenet1_0(num_classes=2),
    "half": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=2).bfloat16(),
    "own state": WithFunctions,
    "weight norm": lambda: nn.Sequential(
        nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(3600, 2)
    ),
    "compiled": lambda: torch.compile(Twice(), backend="eager"),
    "a part compiled": lambda: nn.Sequential(torch.compile(Twice(), backend="eager"), nn.Linear(2, 2)),
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_copy_without_values_puts_out_what_the_network_puts_out_in_shape(build):
    torch.manual_seed(0)
    network = build()
    before = copy.deepcopy(network.state_dict())
    with frozen_eval(network) as net:
        expected = net(IMAGES)
        shapes = meta_copy(net)
        assert list(layers_of(shapes)) == list(layers_of(net))
        assert all(tensor.is_meta for tensor in [*shapes.parameters(), *shapes.buffers()])
        out = shapes(torch.empty_like(IMAGES, device="meta"))
    assert out.is_meta
    assert out.shape == expected.shape
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_copy_calls_its_own_forward_where_that_was_put_among_the_attributes():
    network = nn.Sequential(nn.Conv2d(3, 2, 1))
    network.forward = network.forward  # as Lightning does when it has redirected it
    assert meta_copy(network)(torch.empty(1, 3, 4, 4, device="meta")).is_meta


def test_memory_of_the_machine_runs_out_too():
    with pytest.raises(RuntimeError) as reported:
        torch.empty(1 << 60)
    assert ran_out_of_memory(reported.value)
    assert not ran_out_of_memory(ValueError("something else"))
