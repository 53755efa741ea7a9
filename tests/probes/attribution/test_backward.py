"""Backward rules: which rectifications they find, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F
from dispatch_oracle import Rule, by_dispatch, to_the_centres
from relu_networks import HARD, IMAGES, RULES, Half, Small, built
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.autograd_graph import kind, nodes_of
from fulgurite.probes.attribution.backward import backward_rules, guided_backprop
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.objectives import class_score

ONLY_RELUS = {  # by what makes them hard, and the side of the image
    "torchvision/alexnet": 64,
    "torchvision/vgg11": 32,
    "torchvision/squeezenet1_1": 32,
    "torchvision/resnet18": 32,
    "torchvision/regnet_x_400mf": 32,
    "torchvision/mnasnet0_5": 32,
    # functional
    "torchvision/densenet121": 32,
    "torchvision/googlenet": 32,
    "torchvision/inception_v3": 75,
    "torchvision/shufflenet_v2_x0_5": 32,
    # ReLU6
    "torchvision/mobilenet_v2": 32,
    "timm/efficientnet_lite0": 32,
    "timm/starnet_s1": 32,
    # before the branches of a residual block
    "timm/resnetv2_50": 32,
    "timm/nf_resnet26": 32,
    # one module in many places, parallel branches
    "timm/hrnet_w18_small": 32,
    "timm/dla46_c": 32,
    "timm/inception_v4": 80,
    "timm/dpn68": 32,
    "timm/selecsls42b": 32,
    "timm/res2net50_14w_8s": 32,
    "timm/repvgg_a0": 32,
    # in gates as well
    "torchvision/regnet_y_400mf": 32,
    "timm/legacy_seresnet18": 32,
    "timm/ese_vovnet19b_dw": 32,
    "timm/resnest14d": 32,
    "timm/skresnet18": 32,
    # what is done in place on views
    "timm/ghostnet_050": 32,
    # and some more
    "timm/legacy_xception": 64,
    "timm/vovnet39a": 32,
    "timm/hgnetv2_b0": 32,
    "timm/mobilenetv4_conv_small": 32,
}
SLOW = {
    "timm/nasnetalarge": 96,
    "timm/pnasnet5large": 96,
    "timm/inception_resnet_v2": 80,
    "timm/legacy_senet154": 32,
    "timm/mobileone_s0": 32,
    "timm/ghostnetv3_050": 64,
    "timm/repghostnet_050": 32,
    "timm/hrnet_w18_ssld": 32,
    "timm/densenetblur121d": 32,
    "timm/resnetv2_50x1_bit": 32,
    "timm/resnetrs50": 32,
    "timm/lambda_resnet26t": 64,
    "timm/efficientvit_m0": 224,
    "timm/shvit_s1": 64,
    "timm/gernet_s": 32,
    "timm/semnasnet_075": 32,
    "timm/fbnetc_100": 32,
}
MIXED = {
    "torchvision/mobilenet_v3_small": "Hardswish",
    "timm/hardcorenas_a": "Hardswish",
    "timm/rexnet_100": "Silu",
    "timm/mixnet_s": "Silu",
    "timm/tresnet_m": "LeakyRelu",
    "timm/dpn48b": "Silu",
}


# one rule for each architecture, by turns; both take the same way through a network
CASES = [
    pytest.param(rule, name, marks=[] if name in ONLY_RELUS and turn % 2 == place else [pytest.mark.slow])
    for turn, name in enumerate({**ONLY_RELUS, **SLOW})
    for place, rule in enumerate(RULES)
]


@pytest.mark.parametrize(("rule", "name"), CASES)
def test_the_rules_are_exact_in_every_architecture(rule, name):
    network, side = built(name), {**ONLY_RELUS, **SLOW}[name]
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    ours, slow = (
        backward_rules(network, images, class_score(3), relu=rule),
        by_dispatch(network, images, 3, relu=rule),
    )
    assert ours.abs().max() > 0
    assert_close(ours, slow, rtol=0, atol=0)


@pytest.mark.parametrize("name", MIXED)
def test_other_activations_are_named_and_the_rules_are_exact_at_the_relus(name):
    network, images = built(name), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for rule in RULES:
        with pytest.warns(
            UserWarning, match=rf"the {rule} rule holds at \d+ ReLUs; \d+ x {MIXED[name]} kept"
        ):
            ours = backward_rules(network, images, class_score(3), relu=rule)
        assert_close(ours, by_dispatch(network, images, 3, relu=rule), rtol=0, atol=0)


@pytest.mark.parametrize("rule", [*RULES, "salinet"])
@pytest.mark.parametrize("case", HARD)
def test_the_rules_are_exact_where_others_go_wrong(case, rule):
    network = HARD[case]()
    assert_close(
        backward_rules(network, IMAGES, class_score(1), relu=rule),
        by_dispatch(network, IMAGES, 1, relu=rule),
        rtol=0,
        atol=0,
    )


POOLS = {
    "2": nn.MaxPool2d(2),
    "3/2/1": nn.MaxPool2d(3, 2, 1),
    "3/1/1": nn.MaxPool2d(3, 1, 1),
    "3/3": nn.MaxPool2d(3),
    "4/2/2": nn.MaxPool2d(4, 2, 2),
    "2x3": nn.MaxPool2d((2, 3), (2, 1), (1, 0)),
    "dilated": nn.MaxPool2d(2, 1, 1, dilation=3),
    "dilated by two": nn.MaxPool2d(3, 2, 1, dilation=(2, 1)),
    "ceiled": nn.MaxPool2d(3, 2, ceil_mode=True),
    "ceiled and padded": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "function": lambda maps: F.max_pool2d(maps, 2),
    "function with indices": lambda maps: F.max_pool2d(maps, 3, 2, return_indices=True)[0],
    "global": lambda maps: F.max_pool2d(maps, maps.shape[2:]),
}


@pytest.mark.parametrize("rule", [*RULES, "salinet"])
@pytest.mark.parametrize("pool", POOLS)
def test_max_pooling_passes_back_to_the_middle_of_its_window(pool, rule):
    network = Small(pool=POOLS[pool])
    expected = by_dispatch(network, IMAGES, 1, relu=rule, pool="centre")
    ours = backward_rules(network, IMAGES, class_score(1), relu=rule, pool="centre")
    assert_close(ours, expected, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(ours, backward_rules(network, IMAGES, class_score(1), relu=rule))


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "squeezenet1_1", "googlenet"])
def test_max_pooling_passes_back_to_the_middle_in_known_networks(name):
    network, images = (
        built(f"torchvision/{name}"),
        torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)),
    )
    ours = backward_rules(network, images, class_score(3), relu="deconvnet", pool="centre")
    slow = by_dispatch(network, images, 3, relu="deconvnet", pool="centre")
    assert_close(ours, slow, rtol=1e-5, atol=1e-5 * slow.abs().max().item())


@pytest.mark.parametrize("sides", [2, 3, 1, (2, 5), (1, 3)])
def test_adaptive_max_pooling_passes_back_to_the_middle_of_its_window(sides):
    network = nn.Sequential(nn.AdaptiveMaxPool2d(sides), nn.Flatten(), nn.LazyLinear(4))
    images = torch.rand(2, 3, 8, 7, generator=torch.Generator().manual_seed(0))
    pooled = network[0](images)
    network(images)
    weights = network[2].weight[1].view(pooled.shape[1:])
    expected = torch.zeros_like(images)
    for row in range(pooled.shape[2]):
        for column in range(pooled.shape[3]):
            top, bottom = row * 8 // pooled.shape[2], -(-(row + 1) * 8 // pooled.shape[2])
            left, right = column * 7 // pooled.shape[3], -(-(column + 1) * 7 // pooled.shape[3])
            expected[:, :, (top + bottom) // 2, (left + right) // 2] += weights[:, row, column]
    ours = backward_rules(network, images, class_score(1), relu="salinet", pool="centre")
    assert_close(ours, expected.detach())


def test_of_four_places_the_lower_right_is_the_middle():
    network = nn.Sequential(nn.MaxPool2d(2), nn.Flatten())
    ours = backward_rules(network, torch.rand(1, 1, 4, 4), class_score(0), relu="salinet", pool="centre")
    assert ours.nonzero().tolist() == [[0, 0, 1, 1]]


def test_with_centres_too_no_rule_depends_on_the_image():
    network = Small(pool=nn.MaxPool2d(3, 2))
    maps = [
        backward_rules(network, images, class_score(1), relu="deconvnet", pool="centre")
        for images in (IMAGES, torch.randn(2, 3, 10, 10))
    ]
    assert torch.equal(*maps)


def test_autograd_records_the_steps_that_the_rules_need():
    pixels = torch.randn(1, 1, 4, 4, requires_grad=True)

    def node(out):
        return out.sum().grad_fn.next_functions[0][0]

    assert kind(node(F.relu(pixels))) == "Relu"
    assert node(F.threshold(pixels, 0, 0))._saved_threshold == 0
    assert node(F.relu6(pixels))._saved_min_val == 0
    assert node(pixels.clamp(0, 6))._saved_min == 0
    assert node(pixels.clamp(max=6))._saved_min is None
    assert node(pixels.clamp_min(0))._saved_min == 0
    pool = node(F.max_pool2d(pixels, (2, 1), None, (1, 0)))
    assert kind(pool) == "MaxPool2DWithIndices"
    assert tuple(pool._saved_kernel_size) == (2, 1)
    assert tuple(pool._saved_stride) in ((), (2, 1))
    assert tuple(pool._saved_padding) == (1, 0)
    assert tuple(pool._saved_dilation) == (1, 1)
    assert kind(node(F.adaptive_max_pool2d(pixels, 2))) == "AdaptiveMaxPool2D"
    assert "CopySlices" in {
        node.name().rpartition("::")[2] for node in nodes_of([Half(F.relu_)(pixels * 1).sum()])
    }


def test_the_twin_counts_what_it_meets():
    network = Small(pool=nn.MaxPool2d(2))
    score = network(IMAGES.clone().requires_grad_()).sum()
    with Rule("desalinet", "centre") as rule:
        score.backward()
    assert rule.met == 3
    grad = to_the_centres(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 4, 4), [2, 2], [], [0, 0], [1, 1])
    assert grad[0, 0].nonzero().tolist() == [[1, 1], [1, 3], [3, 1], [3, 3]]


def test_no_hook_is_left_on_a_graph_of_ours():
    network = Small()
    before = gradient(network, IMAGES, class_score(1))
    guided_backprop(network, IMAGES, class_score(1))
    assert torch.equal(gradient(network, IMAGES, class_score(1)), before)
