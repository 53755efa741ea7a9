"""Which layer a class activation map is of, and which are refused."""

import copy

import pytest
import torch
import torch.nn.functional as F
from cam_networks import CAMS, IMAGES, averaging, torchvisions
from torch import nn

from fulgurite.models.networks import build
from fulgurite.probes.attribution.cam import cam, grad_cam, layer_cam, score_cam
from fulgurite.probes.objectives import (
    channel,
    class_score,
    unit,
)
from fulgurite.probes.stages import classifier_layer, penultimate
from fulgurite.probes.trace import trace


def out_of_place(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = False
    return network


@pytest.mark.parametrize("method", [grad_cam, layer_cam, score_cam])
def test_what_is_done_in_place_after_the_layer_does_not_reach_its_maps(method):
    network = averaging()
    assert network[2].inplace
    ours = method(network, IMAGES, class_score(1), layer="1")
    assert torch.equal(ours, method(out_of_place(network), IMAGES, class_score(1), layer="1"))


@pytest.mark.slow
def test_vggs_in_place_relus_do_not_reach_the_maps():
    network, images = (
        torchvisions("vgg11"),
        torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)),
    )
    assert network.features[19].inplace
    ours = grad_cam(network, images, class_score(3), layer="features.18")
    assert torch.equal(ours, grad_cam(out_of_place(network), images, class_score(3), layer="features.18"))
    assert ours.min() < 0


@pytest.mark.parametrize(("side", "layer"), [(96, "layer4"), (64, "layer4"), (32, "layer3"), (16, "layer2")])
def test_the_default_layer_is_the_last_with_maps(side, layer):
    network, images = torchvisions("resnet18"), torch.rand(1, 3, side, side)
    expected = grad_cam(network, images, class_score(1), layer=layer)
    assert torch.equal(grad_cam(network, images, class_score(1)), expected)


def test_the_default_layer_is_before_the_objective():
    objective = channel("2", 1) + 0.1 * channel("4", 2)
    expected = grad_cam(averaging(), IMAGES, objective, layer="4")
    assert torch.equal(grad_cam(averaging(), IMAGES, objective), expected)
    for layer in ("0", "1", "2"):  # at the latest, where the objective is read
        objective = unit(layer, 1)
        assert torch.equal(
            grad_cam(averaging(), IMAGES, objective), grad_cam(averaging(), IMAGES, objective, layer=layer)
        )


class HeadFirst(nn.Module):
    """Lists its classifier first, and runs it last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.late, self.early = nn.Linear(5, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.head(F.relu(self.late(F.relu(self.early(images)))).mean((2, 3)))


@pytest.mark.parametrize("method", CAMS[1:])
def test_the_classifier_is_the_last_to_run_wherever_it_was_defined(method):
    calls = trace(HeadFirst(), IMAGES)
    assert classifier_layer(calls) == "head"
    assert penultimate(calls) == "late"
    expected = method(HeadFirst(), IMAGES, class_score(1), layer="late")
    assert torch.equal(method(HeadFirst(), IMAGES, class_score(1)), expected)


def test_a_network_without_weights_is_reported_to_have_no_maps():
    network = nn.Sequential(nn.AvgPool2d(2), nn.ReLU(), nn.Flatten())
    with pytest.raises(ValueError, match="no layer outputs maps larger than 1 x 1"):
        grad_cam(network, IMAGES, class_score(1))


class Twice(nn.Module):
    """Runs one convolution twice, one never, and a layer that outputs two tensors."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.again, self.never = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.pairs, self.last = nn.LSTM(6, 3), nn.Linear(3, 2)

    def forward(self, images):
        maps = self.again(F.relu(self.again(images)))
        return self.last(maps.mean((2, 3)) + self.pairs(maps[:, 0])[0].mean(1))


@pytest.mark.parametrize("method", CAMS)
def test_a_layer_that_cannot_be_mapped_is_refused(method):
    with pytest.raises(ValueError, match=r"no layer '44' in Sequential; nearest: .*4"):
        method(averaging(), IMAGES, class_score(1), layer="44")
    with pytest.raises(ValueError, match=r"layer '7' outputs \(2, 5\); wanted maps"):
        method(averaging(), IMAGES, class_score(1), layer="7")
    with pytest.raises(ValueError, match="layer 'again' runs more than once in a pass"):
        method(Twice(), IMAGES, class_score(1), layer="again")
    with pytest.raises(ValueError, match=r"pairs \(LSTM\) outputs a tuple, wanted one tensor"):
        method(Twice(), IMAGES, class_score(1), layer="pairs")
    with pytest.raises(ValueError, match="no layer outputs maps larger than 1 x 1"):
        method(nn.Sequential(nn.Flatten(), nn.Linear(360, 3)), IMAGES, class_score(1))


@pytest.mark.parametrize("method", CAMS)
def test_a_layer_that_does_not_run_is_named(method):
    with pytest.raises(ValueError, match="never"):
        method(Twice(), IMAGES, class_score(1), layer="never")


@pytest.mark.parametrize("method", [cam, grad_cam, layer_cam])
def test_a_layer_after_the_objective_is_refused(method):
    with pytest.raises(ValueError, match="the objective does not depend on layer '4'"):
        method(averaging(), IMAGES, channel("2", 1), layer="4")
    with pytest.raises(ValueError, match=r"objective 1 \(of 2, from 0\) does not depend on layer '4'"):
        method(averaging(), IMAGES, [class_score(0), channel("2", 1)], layer="4")


@pytest.mark.parametrize("method", CAMS)
def test_below_the_layer_there_is_no_graph(method):
    seen = {}

    class Watching(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, maps):
            seen.setdefault(self.name, maps.requires_grad)
            return maps

    body = averaging()
    network = nn.Sequential(
        Watching("images"), *body[:4], Watching("below"), body[4], Watching("above"), *body[5:]
    )
    images = IMAGES.clone().requires_grad_()
    found = method(network, images, class_score(1), layer="5" if method is not cam else "8")
    assert not seen["images"]
    assert not seen["below"]
    assert seen["above"] == (method is not cam)
    assert not found.requires_grad
    assert images.grad is None


class Squared(nn.Module):
    """Its scores are linear in the squares of its averaged maps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, images):
        averages = self.conv(images).mean((2, 3))
        return self.head(averages * averages)


def test_a_score_of_products_of_averages_has_no_cam():
    with pytest.raises(ValueError, match="there is Mul between"):
        cam(Squared(), IMAGES, class_score(1))


@pytest.mark.parametrize("method", CAMS)
def test_objectives_that_read_different_layers_need_a_named_layer(method):
    asked = [class_score(1), channel("4", 2)]
    with pytest.raises(ValueError, match="read different layers; name the layer"):
        method(averaging(), IMAGES, asked)


def test_score_cam_needs_a_layer_that_the_objective_depends_on():
    with pytest.raises(ValueError, match="does not depend on layer '4'"):
        score_cam(averaging(), IMAGES, channel("0", 1), layer="4")


class HomeMade(nn.Module):
    """A transformer that does not define its grid: 8 x 8 patches, a class token, two blocks."""

    def __init__(self, *, attention: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
        self.first = nn.Parameter(torch.rand(1, 1, 8))
        self.softmax = nn.Softmax(-1)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.attention = attention

    def forward(self, images):
        tokens = self.patch(images).flatten(2).mT
        tokens = torch.cat([self.first.expand(len(tokens), -1, -1), tokens], 1)
        for block in self.blocks:
            weights = (tokens @ tokens.mT)[:, None]
            weights = self.softmax(weights) if self.attention else weights.softmax(-1)
            tokens = tokens + block(weights[:, 0] @ tokens)
        return self.head(tokens[:, 0])


@pytest.mark.parametrize("attention", [False, True])
def test_maps_before_the_tokens_of_an_unknown_grid_are_refused_however_small(attention: bool):
    network, images = HomeMade(attention=attention), torch.rand(2, 3, 32, 32)
    with pytest.raises(ValueError, match="tokens of a grid that is not known; name the layer"):
        grad_cam(network, images, class_score(1))
    assert grad_cam(network, images, class_score(1), layer="patch").any()


@pytest.mark.parametrize("name", ["pit_ti_224", "levit_128s", "efficientformer_l1"])
def test_maps_of_the_stem_alone_are_refused(name):
    network, images = build(f"timm/{name}", classes=5).eval(), torch.rand(1, 3, 224, 224)
    with pytest.raises(ValueError, match=r"is '\w+', after \d+ of \d+ layers with weights; later ones"):
        grad_cam(network, images, class_score(1))
    assert grad_cam(
        network, images, class_score(1), layer="stem" if name != "pit_ti_224" else "pos_drop"
    ).any()
