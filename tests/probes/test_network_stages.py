"""Classifier, penultimate layer and stages from a trace agree with each other."""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.testing import assert_close

from fulgurite.models.small_networks import AllConv, PreActResNet18, SmallVGG
from fulgurite.models.stages import stages_of
from fulgurite.models.weights import ends
from fulgurite.probes.frozen_eval import frozen_eval
from fulgurite.probes.objectives import pooled
from fulgurite.probes.record import record
from fulgurite.probes.representation.codes import codes
from fulgurite.probes.stages import classifier_layer, penultimate, stages
from fulgurite.probes.trace import trace


def torchvisions(name: str):
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=3)


class Functional(nn.Module):
    """Lists its classifier first, and runs it last, after a ReLU that is not a layer."""

    def __init__(self):
        super().__init__()
        self.head, self.hidden, self.conv = nn.Linear(5, 2), nn.Linear(4, 5), nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.head(F.relu(self.hidden(self.conv(images).mean((2, 3)))))


# the classifier and the layer before it
NETWORKS = {
    "resnet18": (torchvisions("resnet18"), "fc", "layer4"),
    "squeezenet": (torchvisions("squeezenet1_0"), "classifier.1", "features"),
    "vgg11_bn": (torchvisions("vgg11_bn"), "classifier.6", "classifier.4"),
    "mobilenet_v3": (torchvisions("mobilenet_v3_small"), "classifier.3", "classifier.1"),
    "shufflenet": (torchvisions("shufflenet_v2_x0_5"), "fc", "conv5"),
    "googlenet": (torchvisions("googlenet"), "fc", "inception5b"),
    "timm resnet10t": (lambda: timm.create_model("resnet10t", num_classes=3), "fc", "global_pool"),
    "timm convnext": (lambda: timm.create_model("convnext_atto", num_classes=3), "head.fc", "head.norm"),
    "timm ghostnet": (lambda: timm.create_model("ghostnet_050", num_classes=3), "classifier", "act2"),
    "small_vgg": (lambda: SmallVGG(3, 3), "classifier", "relu4"),
    "all_conv": (lambda: AllConv(3, 3), "classifier", "relu6"),
    "preact": (lambda: PreActResNet18(3, 3, width=8), "classifier", "relu"),
}


@pytest.mark.parametrize(("build", "classifier", "before"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet")
def test_every_notion_of_a_classifier_and_of_what_is_before_it_agrees(build, classifier, before):
    torch.manual_seed(0)
    network, images = build(), torch.rand(2, 3, 96, 96)
    calls = trace(network, images.to("meta"))
    assert classifier_layer(calls) == classifier
    assert penultimate(calls) == before
    # by definition, with no pass
    assert ends(network)[1] == [classifier]
    # the stage that is tuned first
    assert {f"{classifier}.weight", f"{classifier}.bias"} <= _parameters(
        network, stages_of(network)[-1].pattern
    )
    # the layer before it outputs the classifier's input
    with frozen_eval(network) as net, record(net, [before]) as seen, torch.no_grad():
        net(images)
    assert_close(pooled(seen[before]), codes(network, images), rtol=1e-4, atol=1e-5)
    # the last stage ends there, but for what only normalises, activates or pools
    last = stages(calls)[-1]
    order = [call.path for call in calls]
    rest = {type(call.module).__name__ for call in calls[order.index(last) + 1 : order.index(before) + 1]}
    assert not any(kind.startswith(("Conv", "Linear")) for kind in rest)


def _parameters(network: nn.Module, pattern: str) -> set[str]:
    import re

    return {name for name, _ in network.named_parameters() if re.match(pattern, name)}


def test_the_classifier_is_the_last_to_run_not_the_last_to_be_defined():
    calls = trace(Functional(), torch.rand(1, 3, 8, 8))
    assert classifier_layer(calls) == "head"
    assert penultimate(calls) == "hidden"
    assert stages(calls) == ["conv", "hidden"]


def test_shapes_alone_give_the_same_stages():
    network = torchvision.models.resnet18(num_classes=3)
    images = torch.rand(1, 3, 64, 64)
    assert stages(trace(network, images.to("meta"))) == ["relu", "layer1", "layer2", "layer3", "layer4"]


def test_a_network_of_one_layer_has_nothing_before_it():
    calls = trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), torch.rand(1, 3, 8, 8))
    assert classifier_layer(calls) == "1"
    with pytest.raises(ValueError, match="Sequential has no layer before its classifier"):
        penultimate(calls)
    with pytest.raises(ValueError, match="Sequential has no stage before its classifier"):
        stages(calls)
    with pytest.raises(ValueError, match="Flatten has no linear layer and no convolution"):
        classifier_layer(trace(nn.Flatten(), torch.rand(1, 3, 8, 8)))
