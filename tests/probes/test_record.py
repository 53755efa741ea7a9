"""Recording of layers: values, in-place changes, hooks that are gone afterwards."""

import copy
from contextlib import suppress

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.record import bare, layer_of, layers_of, nearest, record

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small(inplace=True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


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


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.split = nn.Identity()
        self.split.forward = lambda images: (images, images)

    def forward(self, images):
        return {"logits": self.split(images)[0].mean((2, 3))}


def hooks(network) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def out_of_place(network):
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (torchvision.models.resnet18, "bn1"),
        (torchvision.models.resnet18, "layer2.0.bn1"),
        (torchvision.models.vgg11, "features.0"),
        (torchvision.models.squeezenet1_0, "features.0"),
        (torchvision.models.squeezenet1_0, "features.3.squeeze"),
    ],
)
def test_a_layers_own_values_are_kept_before_an_in_place_relu(build, layer):
    network = build(num_classes=2).eval()
    with record(network, [layer]) as seen, torch.no_grad():
        logits = network(IMAGES)
    twin, expected = out_of_place(network), {}
    handle = twin.get_submodule(layer).register_forward_hook(lambda _m, _i, out: expected.update(out=out))
    with torch.no_grad():
        assert torch.equal(twin(IMAGES), logits)
    handle.remove()
    assert (expected["out"] < 0).any()
    assert torch.equal(seen[layer], expected["out"])


def test_the_gradient_of_what_was_kept_is_that_of_the_layer_itself():
    images = IMAGES.clone().requires_grad_()
    network = small()
    with record(network, ["0"]) as seen:
        network(images)
    ours = torch.autograd.grad(seen["0"].sum(), images)
    assert torch.equal(ours[0], torch.autograd.grad(network[0](images).sum(), images)[0])


def test_a_layer_can_be_read_where_it_takes_in():
    network = small()
    with record(network, [], inputs=["1", "4"]) as seen:
        network(IMAGES)
    assert torch.equal(seen["1"], network[0](IMAGES))
    assert torch.equal(seen["4"], network[:4](IMAGES))


def test_the_output_of_the_network_keeps_its_value_too():
    network = small()
    with record(network, [""]) as seen, torch.no_grad():
        logits = network(IMAGES)
    kept = logits.clone()
    logits.zero_()
    assert torch.equal(seen[""], kept)


def test_recording_changes_no_answer():
    network = small()
    with record(network, list(layers_of(network)), inputs=["0"]):
        recorded = network(IMAGES)
    assert torch.equal(recorded, network(IMAGES))


@pytest.mark.parametrize("failing", [False, True])
def test_no_hook_outlives_its_block(failing):
    network = small()
    with suppress(ZeroDivisionError), record(network, ["0", "2"]):
        assert hooks(network) == 2
        if failing:
            raise ZeroDivisionError
    assert hooks(network) == 0


def test_a_misspelt_layer_lists_the_nearest():
    network = torchvision.models.resnet18(num_classes=2)
    with pytest.raises(ValueError, match=r"no layer 'layer1.0.conv' in ResNet; nearest: layer1\.0\.conv\d"):
        layer_of(network, "layer1.0.conv")
    with pytest.raises(ValueError, match="no layer"), record(network, ["bn1"], inputs=["cn1"]):
        pass
    assert hooks(network) == 0


def test_a_name_without_similar_ones_lists_all():
    assert nearest("zzz", ["", "conv", "head"]) == "there are: conv, head"
    assert nearest("zzz", [f"layer{i}" for i in range(20)]).endswith("layer11 ...")


def test_a_layer_that_puts_out_several_tensors_is_reported():
    network = Pair()
    with record(network, ["split"]), pytest.raises(ValueError, match=r"split \(Identity\) outputs a tuple"):
        network(IMAGES)
    with record(network, [""]), pytest.raises(ValueError, match=r"the network \(Pair\) outputs a dict"):
        network(IMAGES)


def test_a_layer_that_did_not_run_is_reported():
    network = small()
    network.register_module("spare", nn.Identity())
    network.forward = lambda images: network[:5](images)
    with record(network, ["spare"]) as seen:
        network(IMAGES)
    with pytest.raises(ValueError, match="nothing was read from layer 'spare': the network did not run it"):
        seen["spare"]


def test_layers_are_listed_in_the_order_of_their_latest_call():
    network = Twice()
    with record(network, ["head", "relu", "conv"]) as seen:
        network(IMAGES)
    assert list(seen) == ["conv", "relu", "head"]


@pytest.mark.parametrize("compiled", ["whole", "in place", "a part"])
def test_a_compiled_network_is_read_though_it_ran_before(compiled):
    network = nn.ModuleDict({"body": small()})
    network.forward = lambda images: network["body"](images)
    plain = network(IMAGES)
    if compiled == "whole":
        wrapped = torch.compile(network, backend="eager")
    elif compiled == "in place":
        network.compile(backend="eager")
        wrapped = network
    else:
        network["body"] = torch.compile(network["body"], backend="eager")
        wrapped = network
    with torch.no_grad():
        wrapped(IMAGES)
    assert "body.0" in layers_of(wrapped)
    assert not any("_orig_mod" in name for name in layers_of(wrapped))
    with record(wrapped, ["body.0", "body"]) as seen:
        wrapped(IMAGES)
    assert_close(seen["body"], plain)
    assert seen["body.0"].shape == (2, 4, 30, 30)
    with frozen_eval(wrapped) as net, record(net, ["body.0"]) as seen:
        net(IMAGES)
    assert "body.0" in seen


def test_a_network_is_taken_out_of_data_parallel():
    network = small()
    assert bare(nn.DataParallel(torch.compile(network, backend="eager"))) is network
    assert list(layers_of(nn.DataParallel(network))) == list(layers_of(network))


@pytest.mark.ranks
def test_a_network_is_taken_out_of_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        network = small()
        wrapped = nn.parallel.DistributedDataParallel(network)
        assert bare(wrapped) is network
        with record(wrapped, ["0"]) as seen:
            bare(wrapped)(IMAGES)
        assert "0" in seen
        del wrapped
    finally:
        torch.distributed.destroy_process_group()
