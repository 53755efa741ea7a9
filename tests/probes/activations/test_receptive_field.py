"""Receptive fields of known networks, and layers that have none."""

import re

import pytest
import torch
import torch.nn.functional as F
from documentation import DOCS
from torch import nn
from torchvision import models

from fulgurite.models.networks import build
from fulgurite.probes.activations.receptive_field import ReceptiveField, receptive_field, receptive_fields


def formula(layers) -> ReceptiveField:
    """Size, stride and offset of a chain, by arithmetic (Araujo et al. 2019)."""
    size, jump, start = 1, 1, 0
    for layer in layers:
        if hasattr(layer, "kernel_size"):
            kernel, stride, padding, gap = (
                one[0] if isinstance(one, tuple) else one
                for one in (
                    *(layer.kernel_size, layer.stride, layer.padding),
                    getattr(layer, "dilation", 1),
                )
            )
            size += (kernel - 1) * gap * jump
            start -= padding * jump
            jump *= stride
    return ReceptiveField((size, size), (jump, jump), (start, start))


CHAINS = {
    "plain": [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 5, stride=2, padding=1)],
    "dilated": [nn.Conv2d(3, 4, 3, dilation=4), nn.Conv2d(4, 4, 3, stride=3, dilation=2, padding=3)],
    "pooled": [nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1), nn.ReLU6(), nn.AvgPool2d(2), nn.MaxPool2d(2)],
    "dilated pool": [nn.MaxPool2d(3, 2, 1, dilation=2), nn.Conv2d(3, 4, 2)],
    "rounded up": [nn.Conv2d(3, 4, 2), nn.MaxPool2d(3, 2, ceil_mode=True)],
    "normalised": [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardswish(), nn.Conv2d(4, 4, 3, groups=4)],
    "overlapping": [nn.Conv2d(3, 4, 7, 4, 2), nn.MaxPool2d(3, 2)],
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_by_the_formula(name):
    network = nn.Sequential(*CHAINS[name])
    last = str(len(network) - 1)
    assert receptive_field(network, last) == formula(network)


PUBLISHED = {
    "alexnet": {"features.12": (195, 32)},
    "vgg16": {"features.28": (196, 16), "features.30": (212, 32)},
    "resnet18": {"layer1": (43, 4), "layer2": (99, 8), "layer3": (211, 16), "layer4": (435, 32)},
}


@pytest.mark.parametrize("name", ["alexnet", "resnet18", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_published_networks(name):
    """Girshick et al. 2014 for AlexNet; Araujo et al. 2019 for the others."""
    network = models.get_model(name)
    found = {
        layer: field for layer, field in receptive_fields(network, list(PUBLISHED[name])).items() if field
    }
    assert {layer: (field.size[0], field.stride[0]) for layer, field in found.items()} == PUBLISHED[name]
    assert all(len({*pair}) == 1 for field in found.values() for pair in (field.size, field.stride))
    if name != "resnet18":
        for layer, field in found.items():
            assert field == formula(
                [*network.get_submodule("features").children()][: int(layer.rpartition(".")[2]) + 1]
            )


def test_the_documentation_has_the_published_ones():
    lines = (DOCS / "units.md").read_text().splitlines()
    for title, name in (("AlexNet", "alexnet"), ("VGG-16", "vgg16"), ("ResNet-18", "resnet18")):
        (line,) = [line for line in lines if line.startswith(f"| {title} | `")]
        found = re.findall(r"`([\w.]+)`[^:]*: (\d+) at (\d+)", line)
        assert {layer: (int(size), int(stride)) for layer, size, stride in found} == PUBLISHED[name]


class Graph(nn.Module):
    """Branches of several widths, all by functions, then a gate, global pooling, and a head of one size."""

    def __init__(self):
        super().__init__()
        self.tall, self.wide = nn.Conv2d(3, 4, (5, 1)), nn.Conv2d(3, 4, (1, 9))
        self.joined, self.norm, self.flat = nn.Identity(), nn.LayerNorm(4), nn.Flatten()
        self.gated, self.fixed, self.head = nn.Identity(), nn.Identity(), nn.Linear(4 * 8 * 4, 2)
        self.anchor = nn.Parameter(torch.rand(1, 4, 3, 3))

    def forward(self, images):
        tall, wide = self.tall(images)[:, :, :, 4:-4], self.wide(images)[:, :, 2:-2]
        # of one channel, a maximum; and normalised over channels, whose gradients sum to nothing
        joined = torch.maximum(tall, wide).relu().permute(0, 2, 3, 1)
        joined = self.joined(self.norm(joined).permute(0, 3, 1, 2) - 5)
        pooled = F.max_pool2d(F.relu(joined - 1e3), 2)
        self.fixed(self.anchor * 2)
        gated = self.gated(pooled * pooled.amax((2, 3), keepdim=True))
        return self.head(self.flat(gated))


def test_any_graph():
    found = receptive_fields(Graph(), ["tall", "joined", "gated"])
    assert found["tall"] == ReceptiveField((5, 1), (1, 1), (0, 0))
    assert found["joined"] == ReceptiveField((5, 9), (1, 1), (0, 0))
    assert found["gated"] is None


def test_a_pool_after_units_that_are_all_dead():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Threshold(1e6, 0.0), nn.MaxPool2d(4), nn.Conv2d(4, 1, 1))
    assert receptive_field(network, "3") == ReceptiveField((6, 6), (4, 4), (0, 0))


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(7), nn.AdaptiveMaxPool2d((3, 5))])
def test_a_field_that_follows_the_image_s_size_is_none(pool):
    network = nn.Sequential(nn.Conv2d(3, 2, 3), pool)
    assert receptive_fields(network, ["0", "1"], largest=512) == {"0": formula(network[:1]), "1": None}
    scaled = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3)
    )
    field = receptive_field(scaled, "2", largest=512)
    assert field is not None
    assert field.size == (4, 4)


def test_a_network_for_one_size_alone():
    sizes = {"image_size": 64, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16}
    network = models.VisionTransformer(patch_size=32, num_classes=2, **sizes)
    assert receptive_field(network, "conv_proj") is None  # two by two patches, each at a border
    network = models.VisionTransformer(patch_size=16, num_classes=2, **sizes)
    assert receptive_field(network, "conv_proj") == ReceptiveField((16, 16), (16, 16), (0, 0))


def test_boxes_lie_on_the_image():
    field = ReceptiveField((7, 5), (4, 2), (-3, -1))
    assert field.box(0, 0, 20, 20) == (0, 0, 4, 4)
    assert field.box(1, 1, 20, 20) == (1, 1, 8, 6)
    assert field.box(4, 9, 20, 20) == (13, 17, 20, 20)


def test_a_box_holds_all_that_a_unit_sees():
    network = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.Conv2d(2, 2, 3, 1, 1))
    for weight in network.parameters():
        nn.init.ones_(weight)
    field = receptive_field(network, "2", channels=1)
    assert field is not None
    images = torch.rand(1, 1, 40, 56, requires_grad=True)
    maps = network(images)
    for row, column in [(0, 0), (3, 5), (9, 13), (0, 13), (5, 0)]:
        (slope,) = torch.autograd.grad(maps[0, 0, row, column], images, retain_graph=True)
        rows, columns = (slope[0, 0] != 0).nonzero(as_tuple=True)
        seen = (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
        assert field.box(row, column, 40, 56) == seen


def test_the_network_is_left_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    before, state = (
        {name: value.clone() for name, value in network.state_dict().items()},
        torch.get_rng_state(),
    )
    receptive_field(network, "2")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert network.training
    assert all(own.grad is None and own.requires_grad for own in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("layr", "no layer 'layr' in Graph; "),
        ("head", r"layer 'head' \(Linear\) has no spatial extent: it outputs \(2,\) for an image; wanted"),
        ("fixed", "layer 'fixed' does not depend on the image"),
    ],
)
def test_what_has_no_field_is_reported(layer, words):
    network = Graph()
    if layer == "head":
        network = nn.Sequential()
        network.add_module("pool", nn.AdaptiveAvgPool2d(1))
        network.add_module("flat", nn.Flatten())
        network.add_module("head", nn.Linear(3, 2))
    with pytest.raises(ValueError, match=words):
        receptive_field(network, layer)


def test_images_of_other_channels_are_reported():
    with pytest.raises(ValueError, match=r"Sequential runs on no image of 3 channels: .*expected input"):
        receptive_field(nn.Sequential(nn.Conv2d(1, 4, 3)), "0", channels=3)


def test_networks_on_grey_images_need_not_say_so():
    network = build("small_vgg", classes=4, channels=1)
    assert receptive_field(network, "relu3") == ReceptiveField((18, 18), (4, 4), (-7, -7))
