"""Rules of backpropagation by hand, by captum's and Xplique's published values, and in closed form."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from cam_networks import one_convolution
from relu_networks import HARD, IMAGES, RULES, PreActivation, Small, built
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.backward import backward_rules, deconvnet, guided_backprop
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.objectives import channel, class_score, unit

SIXTEEN = torch.arange(16.0).view(1, 1, 4, 4)


@pytest.mark.parametrize("layer", ["", "3"])
def test_captums_published_values(layer):
    guided = guided_backprop(one_convolution(), SIXTEEN, class_score(0, layer=layer))
    assert guided[0, 0].tolist() == [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]
    deconvolved = deconvnet(one_convolution(), SIXTEEN, class_score(0, layer=layer))
    assert deconvolved[0, 0].tolist() == [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]


@pytest.mark.parametrize(
    ("activation", "guided", "deconvolved"),
    [
        (F.relu, [0, 0, 0, 0], [10, 0, 0, 20]),
        (nn.ReLU(), [0, 0, 0, 0], [10, 0, 0, 20]),
        (nn.Hardtanh(0, 3), [0, 0, 0, 0], [6, 0, 0, 6]),
    ],
)
def test_xpliques_published_values(activation, guided, deconvolved):
    class Squared(nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.sign = sign

        def forward(self, images):
            return self.sign * activation(images.flatten(1)) ** 2

    images, whole = torch.tensor([5.0, 0.0, -5.0, 10.0]).view(1, 4, 1, 1), [class_score(k) for k in range(4)]
    negative = guided_backprop(Squared(-1), images, sum(whole[1:], whole[0]))
    positive = deconvnet(Squared(1), images, sum(whole[1:], whole[0]))
    assert negative.flatten().tolist() == guided
    assert positive.flatten().tolist() == deconvolved


CAPTUM_IS_RIGHT = {"alexnet": 64, "vgg11": 32, "resnet18": 32, "squeezenet1_1": 32}


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTUM_IS_RIGHT)
def test_captum_agrees_where_each_relu_is_a_separate_module(name, captum):
    network, side = built(f"torchvision/{name}"), CAPTUM_IS_RIGHT[name]
    for module in network.modules():
        if isinstance(module, torchvision.models.resnet.BasicBlock):
            module.relu = nn.ReLU()
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    for ours, theirs in [(guided_backprop, "GuidedBackprop"), (deconvnet, "Deconvolution")]:
        expected = captum(theirs, network, inputs=images, target=5)
        assert_close(ours(network, images, class_score(5)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("case", [case for case in HARD if case != "functional"])
def test_captum_is_wrong_where_relus_are_reused_or_no_nn_relu(case, captum):
    network = HARD[case]()
    theirs = captum("Deconvolution", network, inputs=IMAGES, target=1)
    ours = deconvnet(network, IMAGES, class_score(1))
    assert (theirs - ours).abs().max() > 0.2 * ours.abs().max()


def test_captum_is_wrong_where_relus_are_functions(captum):
    theirs = captum("GuidedBackprop", Small(F.relu), inputs=IMAGES, target=1)
    assert torch.equal(theirs, gradient(Small(F.relu), IMAGES, class_score(1)))
    ours = guided_backprop(Small(F.relu), IMAGES, class_score(1))
    assert (theirs - ours).abs().max() > 0.2 * ours.abs().max()


def perceptron(depth: int = 3, *, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Flatten()]
    for side in [300, *[20] * (depth - 1)]:
        layers += [nn.Linear(side, 20, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(20, 4, bias=bias))


def test_one_relu_by_hand():
    network = perceptron(1)
    first, last = network[1].weight.detach(), network[3].weight.detach()[2]
    alive = (network[1](IMAGES.flatten(1)) > 0).float()
    by_hand = {
        "salinet": (alive * last) @ first,
        "deconvnet": last.clamp(min=0).expand(2, -1) @ first,
        "desalinet": (alive * last.clamp(min=0)) @ first,
    }
    for rule, expected in by_hand.items():
        assert_close(backward_rules(network, IMAGES, class_score(2), relu=rule).flatten(1), expected)


def test_plain_backpropagation_is_the_gradient():
    for network in (Small(pool=nn.MaxPool2d(2)), perceptron()):
        ours = backward_rules(network, IMAGES, class_score(1), relu="salinet")
        assert torch.equal(ours, gradient(network, IMAGES, class_score(1)))


def test_behind_a_positive_first_layer_guided_backpropagation_is_positive():
    network = Small()
    network.first.weight.data.abs_()
    guided = guided_backprop(network, IMAGES, [class_score(k) for k in range(4)])
    assert guided.min() >= 0
    assert guided.max() > 0


def test_all_rules_are_one_where_all_weights_are_positive():
    network = Small(pool=nn.MaxPool2d(2))
    for parameter in network.parameters():
        parameter.data.abs_()
    plain = gradient(network, IMAGES, class_score(1))
    for rule in RULES:
        assert_close(backward_rules(network, IMAGES, class_score(1), relu=rule), plain, rtol=0, atol=0)


def test_without_max_pooling_a_deconvolutional_network_does_not_look_at_the_image():
    for network in (Small(), PreActivation(nn.ReLU()), perceptron()):
        seen, other = (
            deconvnet(network, images, class_score(1)) for images in (IMAGES, torch.randn(2, 3, 10, 10))
        )
        assert torch.equal(seen, other)
        assert torch.equal(seen[0], seen[1])
    pooled = Small(pool=nn.MaxPool2d(2))
    assert not torch.equal(*(deconvnet(pooled, image[None], class_score(1)) for image in IMAGES))


def test_of_one_relu_guided_backpropagation_is_the_deconvolution_where_it_is_alive():
    network = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(300, 4))
    images = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    deconvolved, guided = (rule(network, images, class_score(1)) for rule in (deconvnet, guided_backprop))
    assert torch.equal(guided, deconvolved * (images > 0))
    assert_close(deconvolved.flatten(1), network[2].weight[1].clamp(min=0).expand(2, -1), rtol=0, atol=0)


def test_scaling_the_answer_scales_the_map():
    once, twice = guided_backprop(Small(), IMAGES, [class_score(1), 2 * class_score(1)])
    assert torch.equal(twice, 2 * once)


def test_a_unit_is_seen_by_its_receptive_field_alone():
    network = Small()
    guided = guided_backprop(network, IMAGES, unit("second", 2, row=3, column=4))
    lit = guided.abs().sum((0, 1)) > 0
    assert not lit[[0, 1, 7, 8, 9]].any()
    assert not lit[:, [0, 1, 2, 8, 9]].any()


def test_several_maps_equal_one_call_for_each():
    network = Small(pool=nn.MaxPool2d(2))
    asked = [class_score(torch.tensor([2, 0])), channel("second", 1), class_score(3, layer="last")]
    for rule in RULES:
        together = backward_rules(network, IMAGES, asked, relu=rule, pool="centre")
        for ours, one in zip(together, asked, strict=True):
            assert torch.equal(ours, backward_rules(network, IMAGES, one, relu=rule, pool="centre"))
