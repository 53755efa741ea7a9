"""The module graph: whose outputs are each module's inputs, through functions in between."""

import torch
from torch import nn
from torchvision.models import resnet18

from fulgurite.probes.activations.module_graph import IMAGES, OUTPUT, module_graph


class Branches(nn.Module):
    """A sum of two paths, an activation that runs twice, and one part of the image that no module sees."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Identity()
        self.relu, self.unused = nn.ReLU(inplace=True), nn.ReLU()
        self.head = nn.Linear(7, 2)

    def forward(self, images):
        first = self.relu(self.stem(images))
        both = self.relu(self.left(first) + self.right(first))
        return self.head(torch.cat([both.mean((2, 3)), images.mean((2, 3))], 1)).clamp(-1, 1)


def test_each_module_names_those_it_takes_in():
    nodes = {node.path: node for node in module_graph(Branches(), torch.rand(2, 3, 8, 8))}
    assert {path: set(node.inputs) for path, node in nodes.items()} == {
        IMAGES: set(),
        "stem.0": {IMAGES},
        "stem.1": {"stem.0"},
        "relu": {"stem.1", "left", "right"},
        "left": {"relu"},
        "right": {"relu"},
        "head": {"relu", IMAGES},
        OUTPUT: {"head"},
    }
    assert nodes["left"].kind == "Conv2d"
    assert nodes["left"].shape == (1, 4, 8, 8)
    assert nodes["head"].shape == nodes[OUTPUT].shape == (1, 2)


def test_a_residual_network_has_its_shortcuts():
    network = resnet18().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    nodes = {node.path: set(node.inputs) for node in module_graph(network, torch.rand(1, 3, 64, 64))}
    assert len(nodes) == 2 + sum(not [*module.children()] for module in network.modules())
    assert nodes["layer2.0.relu"] == {"layer2.0.bn1", "layer2.0.bn2", "layer2.0.downsample.1"}
    assert nodes["layer1.1.relu"] == {"layer1.1.bn1", "layer1.1.bn2", "layer1.0.relu"}
    assert nodes["fc"] == {"avgpool"}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
