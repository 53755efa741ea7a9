"""Traces: calls, shapes, multiply-adds and memory."""

import dataclasses
import gc
import math
import weakref
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from fulgurite.probes.trace import Call, by_layer, trace

IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """One ReLU for two convolutions, and a sum."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.relu = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU()

    def forward(self, maps, *, scale):
        return scale * self.relu(self.other(self.relu(self.one(maps))))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.block, self.head = nn.Conv2d(3, 4, 3, bias=False), Block(), nn.Linear(4, 5)

    def forward(self, images):
        return {"logits": self.head(self.block(self.stem(images), scale=torch.tensor(2.0)).mean((2, 3)))}


def places(calls: list[Call]) -> list[str]:
    return [call.path for call in calls]


def test_calls_come_as_they_end_with_their_shapes():
    calls = trace(Small(), IMAGES)
    assert places(calls) == [
        "stem",
        "block.one",
        "block.relu",
        "block.other",
        "block.relu",
        "block",
        "head",
        "",
    ]
    begun = sorted(calls, key=lambda call: call.begun)
    assert places(begun) == [
        "",
        "stem",
        "block",
        "block.one",
        "block.relu",
        "block.other",
        "block.relu",
        "head",
    ]
    assert [call.begun for call in begun] == [*range(8)]
    *_, block, head, whole = calls
    assert block.inputs == ((2, 4, 10, 10), ())
    assert block.output == (2, 4, 6, 6)
    assert head.outputs == (head.output,) == ((2, 5),)
    assert whole.inputs == ((2, 3, 12, 12),)
    assert whole.output is None
    assert whole.outputs == ((2, 5),)


def test_multiply_adds_by_hand():
    stem, one, other = (2 * 4 * 10 * 10 * 27, 2 * 4 * 8 * 8 * 36, 2 * 4 * 6 * 6 * 18)
    head = 2 * 4 * 5
    costs = {path: cost.multiply_adds for path, cost in by_layer(trace(Small(), IMAGES)).items()}
    assert costs == {
        "": stem + one + other + head,
        "stem": stem,
        "block": one + other,
        "block.one": one,
        "block.relu": 0,
        "block.other": other,
        "head": head,
    }


def test_what_autograd_keeps_by_hand():
    maps, number = [2 * 4 * side * side for side in (10, 8, 6)], 4
    images, pooled = IMAGES.numel(), 2 * 4
    expected = {
        "stem": images,  # its own input, to learn its filters
        "block.one": maps[0],
        "block.relu": maps[1] + maps[2],
        # the first ReLU's output is kept already, and so is the factor of the sum
        "block.other": 0,
        "head": pooled,
    }
    costs = by_layer(trace(Small(), IMAGES))
    assert {path: costs[path].saved_bytes / number for path in expected} == expected
    # a factor that learns nothing is kept for the slope of the other
    assert costs["block"].saved_bytes == number * (sum(maps) + 1)
    assert costs[""].saved_bytes == number * (images + sum(maps) + 1 + pooled)
    assert costs["block.relu"].calls == 2


def test_what_is_frozen_keeps_nothing():
    network = Small()
    network.requires_grad_(False)
    assert trace(network, IMAGES)[-1].saved_bytes == 0
    network.head.requires_grad_(True)
    assert trace(network, IMAGES)[-1].saved_bytes == 4 * 2 * 4


@pytest.mark.parametrize(
    ("build", "weights"),
    [
        (models.vgg16, models.VGG16_Weights.IMAGENET1K_V1),
        (models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
        (models.mobilenet_v2, models.MobileNet_V2_Weights.IMAGENET1K_V1),
        (models.squeezenet1_0, models.SqueezeNet1_0_Weights.IMAGENET1K_V1),
        (models.vit_b_16, models.ViT_B_16_Weights.IMAGENET1K_V1),
    ],
)
def test_the_published_multiply_adds(build, weights):
    with torch.device("meta"):
        network = build()
    calls = trace(network, torch.empty(1, 3, 224, 224, device="meta"))
    assert calls[-1].multiply_adds / 1e9 == pytest.approx(weights.meta["_ops"], abs=5e-4)


def test_the_memory_of_vgg16():
    with torch.device("meta"):
        network = models.vgg16()
    image = torch.empty(1, 3, 224, 224, device="meta")
    calls = trace(network, image)
    kinds = nn.Conv2d | nn.MaxPool2d | nn.Linear
    shapes = [call.output for call in calls if isinstance(call.module, kinds) and call.output]
    # convolutions, pooling and linear layers, with the image, as the lecture slide counts
    assert 4 * (sum(map(math.prod, shapes)) + image.numel()) / 1e6 == pytest.approx(61.0, abs=0.05)
    assert calls[-1].saved_bytes / 1e6 == pytest.approx(73.3, abs=0.05)
    assert calls[0].module is not network.features[0]


@pytest.mark.parametrize("build", [models.resnet18, models.squeezenet1_0, models.mobilenet_v2])
def test_shapes_alone_give_the_same_trace(build):
    network = build(num_classes=4)
    real = trace(network, torch.rand(2, 3, 64, 64))
    meta = trace(network, torch.empty(2, 3, 64, 64, device="meta"))
    for one, other in zip(real, meta, strict=True):
        # in eval mode, a CPU's BatchNorm keeps no statistics of its own
        norms = [part for part in one.module.modules() if isinstance(part, nn.BatchNorm2d)]
        assert other.saved_bytes - one.saved_bytes == 2 * 4 * sum(norm.num_features for norm in norms)
        same = {"module": network, "saved_bytes": 0}
        assert dataclasses.replace(one, **same) == dataclasses.replace(other, **same)


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("images", [IMAGES, IMAGES.to("meta")], ids=["values", "meta"])
def test_tracing_changes_nothing(failing, images):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(400, 2)
    )
    network[0].requires_grad_(False)
    network(IMAGES).sum().backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    grads, state = [own.grad for own in network.parameters()], torch.get_rng_state()
    with suppress(RuntimeError):
        trace(network, images[:, :, :5] if failing else images)
    with torch.inference_mode():
        assert failing or trace(network, images)[-1].saved_bytes > 0
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [own.requires_grad for own in network.parameters()] == [False, False, *[True] * 4]
    assert all(own.grad is grad for own, grad in zip(network.parameters(), grads, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_compiled_networks_and_wrapped_ones_are_traced_by_their_own_paths():
    network = Small()
    expected = places(trace(network, IMAGES))
    network.block = torch.compile(network.block, backend="eager")
    wrapped = nn.DataParallel(torch.compile(network, backend="eager"))
    assert places(trace(wrapped, IMAGES)) == expected
    assert places(trace(wrapped, IMAGES.to("meta"))) == expected


def test_no_image_has_a_trace_without_costs():
    assert {call.multiply_adds for call in trace(Small(), IMAGES[:0])} == {0}


def test_functions_count_where_they_are_called():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 3, 3, 3))

        def forward(self, images):
            return F.relu(F.conv2d(images, self.weight)).flatten(1)

    (call,) = trace(Functional(), IMAGES)
    assert call.multiply_adds == 2 * 4 * 100 * 27
    assert call.saved_bytes == 4 * (IMAGES.numel() + 2 * 4 * 100)


def test_a_sparse_tensor_counts_as_a_dense_one():
    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 432))

        def forward(self, images):
            return torch.sparse.mm(self.weight.to_sparse(), images.flatten(1).T).T

    assert trace(Sparse(), IMAGES)[-1].saved_bytes >= 4 * 4 * 432


def test_a_traced_network_is_let_go():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten())
    gone = weakref.ref(network)
    trace(network, torch.rand(2, 3, 9, 9))
    del network
    gc.collect()
    assert gone() is None
