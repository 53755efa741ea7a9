"""Class activation maps of networks whose maps are known."""

import copy

import pytest
import torch
import torch.nn.functional as F
from cam_networks import CAMS, IMAGES, averaging, one_convolution, torchvisions
from torch import nn
from torch.testing import assert_close

from fulgurite.probes import batches
from fulgurite.probes.attribution.backward import guided_backprop
from fulgurite.probes.attribution.cam import cam, grad_cam, guided_grad_cam, layer_cam, score_cam
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.objectives import (
    Objective,
    channel,
    class_score,
    log_probability,
    probability,
)
from fulgurite.probes.record import record


def maps_and_slopes(network, layer, objective, images=IMAGES):
    """The layer's maps and the objective's gradient by them, the whole graph kept."""
    network = copy.deepcopy(network).eval()
    with record(network, [layer, *objective.layers]) as seen:
        network(images)
    return seen[layer].detach(), torch.autograd.grad(objective.value(seen).sum(), seen[layer])[0]


@pytest.mark.parametrize(
    ("layer", "published"), [("0", [[11.25, 13.5], [20.25, 22.5]]), ("1", [[0.0, 4.0], [28.0, 32.5]])]
)
def test_captums_published_values(layer, published):
    images = torch.arange(16.0).view(1, 1, 4, 4)
    ours = grad_cam(one_convolution(), images, class_score(0), layer=layer, enlarge=False)
    assert ours[0, 0].tolist() == published


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [
        ("vgg11", "features.18", 32),
        ("densenet121", "features.denseblock3", 64),
        ("densenet121", "features.denseblock2.denselayer4.conv2", 64),
        ("googlenet", "inception4c", 64),
        ("googlenet", "inception4c.branch2.0", 64),
        ("mobilenet_v2", "features.14", 64),
        ("mobilenet_v2", "features.14.conv.1.0", 64),
        ("resnet18", "layer3", 64),
    ],
)
def test_captum_agrees(name, layer, side, captum):
    network, images = (
        torchvisions(name),
        torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)),
    )
    theirs = captum("LayerGradCam", network, network.get_submodule(layer), inputs=images, target=7)
    ours = grad_cam(network, images, class_score(7), layer=layer, enlarge=False)
    assert theirs.abs().max() > 0
    assert_close(ours, theirs, rtol=0, atol=0)


def test_grad_cam_and_layer_cam_by_their_formulas():
    network, objective = averaging(), log_probability(torch.tensor([2, 0]))
    for layer in ("0", "3", "4"):
        maps, slopes = maps_and_slopes(network, layer, objective)
        by_place = (slopes.clamp(min=0) * maps).sum(1, keepdim=True)
        by_channel = (slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True)
        assert_close(layer_cam(network, IMAGES, objective, layer=layer, enlarge=False), by_place)
        assert_close(grad_cam(network, IMAGES, objective, layer=layer, enlarge=False), by_channel)


@pytest.mark.parametrize("method", CAMS)
def test_enlarged_maps_are_the_small_ones_between(method):
    small = method(averaging(), IMAGES, class_score(1), enlarge=False)
    assert small.shape == (2, 1, 3, 2)
    expected = F.interpolate(small, size=(12, 10), mode="bilinear", align_corners=False)
    assert_close(method(averaging(), IMAGES, class_score(1)), expected)


def test_a_cam_is_the_linear_layers_weights_times_the_features():
    network = torchvisions("resnet18")
    images, classes = (
        torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)),
        torch.tensor([3, 8]),
    )
    with record(network, ["layer4", ""]) as seen:
        network(images)
    expected = torch.einsum("nd,nduv->nuv", network.fc.weight[classes], seen["layer4"])[:, None].detach()
    ours = cam(network, images, class_score(classes), enlarge=False)
    assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    scores = seen[""].gather(1, classes[:, None])[:, 0].detach()
    assert_close(ours.mean((1, 2, 3)) + network.fc.bias[classes].detach(), scores, rtol=1e-5, atol=1e-5)
    places = ours[0, 0].numel()
    assert_close(grad_cam(network, images, class_score(classes), enlarge=False) * places, ours)


@pytest.mark.parametrize(
    ("name", "side"), [("resnet18", 64), ("shufflenet_v2_x0_5", 64), ("googlenet", 64), ("mobilenet_v2", 64)]
)
def test_networks_that_end_in_averaging_and_one_linear_layer_have_cams(name, side):
    network, images = (
        torchvisions(name),
        torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)),
    )
    score, bias = network(images)[0, 5], next(reversed([*network.parameters()]))[5]
    assert_close(cam(network, images, class_score(5)).mean() + bias, score, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda net: net, "LogSoftmax"),
        (lambda net: nn.Sequential(*net[:6], nn.AdaptiveMaxPool2d(1), *net[7:]), "AdaptiveMaxPool2D"),
        (lambda net: nn.Sequential(*net[:8], nn.Linear(5, 5), nn.ReLU(), net[8]), "Relu"),
        (lambda net: nn.Sequential(*net[:8], nn.Linear(5, 5), nn.Tanh(), net[8]), "Tanh"),
    ],
    ids=["probability", "max-pooling", "ReLU", "tanh"],
)
def test_a_score_that_is_not_linear_in_the_averages_has_no_cam(change, why):
    objective = log_probability(0) if why == "LogSoftmax" else class_score(0)
    with pytest.raises(ValueError, match=rf"not linear in the averaged maps of layer '5'.*{why}.*grad_cam"):
        cam(change(averaging()), IMAGES, objective, layer="5")


def test_a_score_that_weighs_places_differently_has_no_cam():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(320, 3))
    with pytest.raises(ValueError, match=r"layer '0': places weigh differently.*there is grad_cam"):
        cam(network, IMAGES, class_score(0))


def test_vggs_have_no_cam():
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"not linear.*Relu between"):
        cam(torchvisions("vgg11"), images, class_score(0), layer="features.18")


def test_a_sum_of_scores_has_the_sum_of_the_cams():
    asked = [class_score(0), class_score(2), class_score(0) - 3 * class_score(2)]
    one, other, both = cam(averaging(), IMAGES, asked, enlarge=False)
    assert_close(both, one - 3 * other)


def test_guided_grad_cam_is_the_product(captum):
    network = averaging().eval()
    ours = guided_grad_cam(network, IMAGES, class_score(1), layer="3")
    places = grad_cam(network, IMAGES, class_score(1), layer="3").clamp(min=0)
    assert_close(ours, places * guided_backprop(network, IMAGES, class_score(1)), rtol=0, atol=0)
    theirs = captum(
        "GuidedGradCam", network, network[3], inputs=IMAGES, target=1, interpolate_mode="bilinear"
    )
    assert theirs.abs().max() > 0
    assert_close(ours, theirs)


@pytest.mark.parametrize("fill", [0.2, "mean"])
def test_score_cam_is_what_a_plain_loop_gives(fill):
    network, classes = averaging().eval(), torch.tensor([2, 0])
    maps, _ = maps_and_slopes(network, "3", class_score(0))
    hidden = torch.full_like(IMAGES, 0.2) if fill == 0.2 else IMAGES.mean((2, 3), keepdim=True)
    expected = torch.zeros(2, 1, 5, 4)
    for place in range(2):
        scores = []
        for seen in maps[place]:
            large = F.interpolate(seen[None, None], size=(12, 10), mode="bilinear", align_corners=False)[0]
            veil = (large - large.min()) / (large.max() - large.min())
            image = veil * IMAGES[place] + (1 - veil) * hidden[place]
            scores.append(network(image[None])[0, classes[place]])
        weights = torch.stack(scores).softmax(0)
        expected[place, 0] = (weights[:, None, None] * maps[place]).sum(0)
    ours = score_cam(network, IMAGES, class_score(classes), layer="3", fill=fill, enlarge=False)
    assert_close(ours, expected.detach(), rtol=1e-4, atol=1e-6)


def test_a_channel_that_is_flat_veils_everything():
    network = averaging().eval()
    network[4].weight.data[1] = 0
    network[4].bias.data[1] = -1
    assert score_cam(network, IMAGES, class_score(0)).isfinite().all()


@pytest.mark.parametrize("most", [1, 3, 100])
def test_score_cam_does_not_depend_on_how_many_are_looked_at_together(most, monkeypatch):
    expected = score_cam(averaging(), IMAGES, class_score(1))
    monkeypatch.setattr(batches, "MOST", most)
    assert_close(score_cam(averaging(), IMAGES, class_score(1)), expected)


@pytest.mark.parametrize("method", [*CAMS, guided_grad_cam])
def test_frozen_in_inference_mode_and_of_one_channel_the_maps_are_the_same(method):
    network = averaging()
    expected = method(network, IMAGES, class_score(1))
    with torch.inference_mode():
        assert torch.equal(method(network, IMAGES * 1, class_score(1)), expected)
        assert not torch.is_grad_enabled()
    assert torch.equal(method(network.requires_grad_(False), IMAGES, class_score(1)), expected)
    grey = nn.Sequential(nn.Conv2d(1, 3, 1), *averaging())
    assert method(grey, IMAGES[:, :1], class_score(1)).shape == (2, 1, 12, 10)


def test_the_maps_of_several_objectives_come_from_one_pass():
    passes = []
    network = averaging()
    network[0].register_forward_hook(lambda *_: passes.append(1))
    asked = [class_score(0), probability(torch.tensor([1, 2])), channel("4", 3)]
    together = grad_cam(network, IMAGES, asked, layer="4")
    assert len(passes) == 1
    for ours, one in zip(together, asked, strict=True):
        assert torch.equal(ours, grad_cam(network, IMAGES, one, layer="4"))


def test_a_grad_cam_of_the_layer_that_is_asked_is_its_own_map():
    network = averaging()
    maps, _ = maps_and_slopes(network, "4", channel("4", 2))
    ours = grad_cam(network, IMAGES, channel("4", 2), layer="4", enlarge=False)
    assert_close(ours[:, 0], maps[:, 2] / maps[0, 0].numel())


def test_a_grad_cam_of_an_image_as_it_comes_is_its_gradient_averaged():
    network = nn.Sequential(nn.Identity(), *averaging()).eval()
    slopes = gradient(network, IMAGES, class_score(1)).mean((2, 3), keepdim=True)
    ours = grad_cam(network, IMAGES, class_score(1), layer="0")
    assert_close(ours, (slopes * IMAGES).sum(1, keepdim=True))


def test_no_objective_is_an_error():
    with pytest.raises(ValueError, match="no objective"):
        grad_cam(averaging(), IMAGES, [])


def test_a_user_objective_works():
    energy = Objective(frozenset({"5"}), lambda seen: seen["5"].square().sum((1, 2, 3)))
    maps, slopes = maps_and_slopes(averaging(), "5", energy)
    ours = grad_cam(averaging(), IMAGES, energy, layer="5", enlarge=False)
    assert_close(ours, (slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))
