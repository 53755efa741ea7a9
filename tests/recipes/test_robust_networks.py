"""Networks of robust recipes: those of the literature, and the small ones of the figures."""

import pytest
import torch
from torch import nn

from fulgurite.models.losses import Adversarial, Fast
from fulgurite.models.networks import build
from fulgurite.models.small_networks import PreActResNet18, StridedCNN
from fulgurite.probes.attacks.gradient_pass import GradientPass
from fulgurite.probes.attacks.threat import Linf
from fulgurite.recipes import robust_cifar10, robust_mnist


def test_mnist_and_cifar10_come_with_the_networks_of_the_literature(tmp_path):
    mnist = robust_mnist.recipe(bf16=True)
    assert isinstance(mnist.model.network, StridedCNN)
    gradient_pass = GradientPass(channels_last=True, dtype=torch.bfloat16, compiled=True)
    assert mnist.model.loss == Adversarial(Linf(0.3), warmup=0.4, gradient_pass=gradient_pass)
    cifar = robust_cifar10.recipe(method="fast", overfitting="pgd")
    assert isinstance(cifar.model.network, PreActResNet18)
    assert cifar.model.loss == Fast(
        Linf("8/255"), gradient_pass=GradientPass(channels_last=True, compiled=True)
    )
    assert cifar.callbacks[0].answer == "pgd"


def test_a_preact_resnet_hands_on_what_it_takes_in_where_nothing_is_added():
    network = build("preact_resnet18", classes=10).eval()
    assert isinstance(network, PreActResNet18)
    # the published network's count: 11 171 146 and the last normalisation's 1024
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_172_170
    block = network.layer1[0]
    assert [type(part) for part in block.children()][:3] == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    nn.init.zeros_(block.conv2.weight)
    maps = torch.randn(2, 64, 8, 8)
    assert torch.equal(block(maps), maps)  # no ReLU on the way, unlike in a ResNet
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("name", "size", "count"), [("small_cnn", 8, 71_754), ("strided_cnn", 28, 166_406)])
def test_the_small_networks_are_those_of_the_figures(name, size, count):
    network = build(name, classes=10, channels=1)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert network.grid(torch.rand(1, 1, network.grid.output_size, network.grid.output_size)).shape[2] > 1
    for side in (size, 32):
        assert network(torch.rand(2, 1, side, side)).shape == (2, 10)
