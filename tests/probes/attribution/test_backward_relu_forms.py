"""Rules of backpropagation, however a rectification is written."""

import pytest
import torch
import torch.nn.functional as F
from dispatch_oracle import by_dispatch
from relu_networks import IMAGES, RULES, Half, Small
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.backward import backward_rules, guided_backprop
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.objectives import Objective, class_score

SPELLINGS = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "relu": torch.Tensor.relu,
    "relu_": torch.Tensor.relu_,
    "F.relu_": F.relu_,
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "aten.relu": torch.ops.aten.relu.default,
    "aten.relu_": torch.ops.aten.relu_.default,
    "F.threshold": lambda x: F.threshold(x, 0, 0),
    "nn.Threshold": nn.Threshold(0.0, 0.0, inplace=True),
    "clamp": lambda x: x.clamp(min=0),
    "clamp to a tensor": lambda x: x.clamp(min=torch.tensor(0.0)),
    "clamp to a tensor of zeros": lambda x: x.clamp(min=torch.zeros_like(x)),
    "clamp between tensors": lambda x: x.clamp(torch.zeros(8, 1, 1), torch.full((8, 1, 1), 1e9)),
    "clamp_min to a tensor": lambda x: x.clamp_min(torch.zeros(8, 1, 1)),
    "torch.maximum": lambda x: torch.maximum(torch.zeros_like(x), x),
    "torch.max of two": lambda x: torch.max(x, x.new_zeros(())),
    "torch.fmax": lambda x: torch.fmax(x, torch.tensor(0.0)),
    "LeakyReLU of slope 0": nn.LeakyReLU(0.0),
    "torch.clip": lambda x: torch.clip(x, 0, None),
    "clamp_": lambda x: x.clamp_(0),
    "clamp_min": lambda x: x.clamp_min(0.0),
    "clamp_min_": lambda x: torch.clamp_min_(x, 0),
    "F.relu6": F.relu6,
    "nn.ReLU6": nn.ReLU6(inplace=True),
    "clamp to 6": lambda x: x.clamp(0, 6),
    "nn.Hardtanh": nn.Hardtanh(0, float("inf")),
    "F.hardtanh_": lambda x: F.hardtanh_(x, 0, 1e9),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_rules_apply_however_a_relu_is_written(spelling, rule):
    expected = backward_rules(Small(F.relu), IMAGES, class_score(1), relu=rule)
    assert not torch.equal(expected, gradient(Small(F.relu), IMAGES, class_score(1)))
    ours = backward_rules(Small(SPELLINGS[spelling]), IMAGES, class_score(1), relu=rule)
    assert torch.equal(ours, expected)


ON_A_VIEW = {
    "relu_": lambda view: view.relu_(),
    "torch.relu_": torch.relu_,
    "F.relu_": F.relu_,
    "F.relu": lambda view: F.relu(view, inplace=True),
    "F.relu by place": lambda view: F.relu(view, True),
    "nn.ReLU": nn.ReLU(inplace=True),
    "nn.ReLU6": nn.ReLU6(inplace=True),
    "nn.Threshold": nn.Threshold(0, 0, inplace=True),
    "nn.Hardtanh": nn.Hardtanh(0, 1e9, inplace=True),
    "F.threshold_": lambda view: F.threshold_(view, 0, 0),
    "F.hardtanh_": lambda view: F.hardtanh_(view, 0, 1e9),
    "clamp_": lambda view: view.clamp_(0),
    "clamp_ by name": lambda view: torch.clamp_(view, min=0),
    "clamp_min_": lambda view: view.clamp_min_(0),
    "clip_": lambda view: view.clip_(min=0),
    "put back": lambda view: view.copy_(F.relu(view)),
    "by name": lambda view: torch.relu_(input=view),
    "aten": torch.ops.aten.relu_.default,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", ON_A_VIEW)
def test_a_relu_in_place_on_a_view_is_found(spelling, rule):
    def apart(maps):
        return torch.cat([F.relu(maps[:, :4]), maps[:, 4:]], 1)

    expected = backward_rules(Small(apart), IMAGES, class_score(1), relu=rule)
    ours = backward_rules(Small(Half(ON_A_VIEW[spelling])), IMAGES, class_score(1), relu=rule)
    assert torch.equal(ours, expected)


def cleared(maps):
    maps = maps.clone()
    maps[maps < 0] = 0
    return maps


def hooked(maps):
    """A ReLU that autograd does not know of, and its gradient by a hook."""
    maps = maps * 1
    mask = maps > 0
    maps.data.clamp_(min=0)
    maps.register_hook(lambda grad: grad * mask)
    return maps


def in_secret(maps):
    maps = maps * 1
    with torch.no_grad():
        maps.clamp_(min=0)
    return maps


CHOSEN = "choice made in Python by what is computed from the image"
BEHIND = "write past autograd of what is computed from the image"
UNTOLD = {  # by what the sentence calls them
    "(x + abs(x)) / 2": ("Abs", lambda x: (x + x.abs()) / 2),
    "x * (x > 0)": ("Mul by what is computed from the image", lambda x: x * (x > 0)),
    "x * (x > 0).float()": ("Mul by what is computed from the image", lambda x: x * (x > 0).float()),
    "x / (1 + big * (x < 0))": ("Div by what is computed from the image", lambda x: x / (1 + 1e30 * (x < 0))),
    "x * heaviside(x)": (
        "Mul by what is computed from the image",
        lambda x: x * torch.heaviside(x.detach(), torch.zeros(())),
    ),
    "x * sign(x)": ("Sign", lambda x: (x + x * x.sign()) / 2),
    "stack().amax": ("Amax", lambda x: torch.stack([x, torch.zeros_like(x)]).amax(0)),
    "stack().max": ("Max", lambda x: torch.stack([x, torch.zeros_like(x)]).max(0).values),
    "stack().gather": (
        "Gather by what is computed from the image",
        lambda x: torch.stack([torch.zeros_like(x), x]).gather(0, (x > 0).long()[None])[0],
    ),
    "sort": ("Sort", lambda x: torch.stack([x, torch.zeros_like(x)]).sort(0).values[1]),
    "x - x.clamp(max=0)": ("Clamp", lambda x: x - x.clamp(max=0)),
    "x - minimum": ("Minimum", lambda x: x - torch.minimum(x, torch.zeros_like(x))),
    "where": ("Where", lambda x: torch.where(x > 0, x, 0.0)),
    "masked_fill": ("MaskedFill", lambda x: x.masked_fill(x < 0, 0)),
    "x[x < 0] = 0": ("MaskedFill", cleared),
    "square root of the square": ("Sqrt", lambda x: (x + x.square().sqrt()) / 2),
    "maximum of two": ("Maximum", lambda x: torch.maximum(x, 0 * x.mean())),
    "view.mul_(mask)": ("Mul by what is computed from the image", Half(lambda view: view.mul_(view > 0))),
    "view[view < 0] = 0": ("MaskedFill", Half(lambda view: view.__setitem__(view < 0, 0))),
    "RReLU": ("RreluWithNoise", nn.RReLU()),
    "Hardshrink": ("Hardshrink", nn.Hardshrink()),
    "Softshrink": ("Softshrink", nn.Softshrink()),
    "Softsign": ("Abs", nn.Softsign()),
    "if": (CHOSEN, lambda x: x if x.mean() > 0 else x / 3),
    "a number of Python": (CHOSEN, lambda x: x * max(x.mean().item(), 0.0)),
    "straight through": (
        "Add of what is computed from the image and detached",
        lambda x: x + (x.clamp(min=0) - x).detach(),
    ),
    "less what is negative": (
        "Sub of what is computed from the image and detached",
        lambda x: x - x.detach().clamp(max=0),
    ),
    "data and a hook": (BEHIND, hooked),
    "without gradients": (BEHIND, in_secret),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", UNTOLD)
def test_what_may_be_a_relu_beside_another_is_reported(spelling, rule):
    name, between = UNTOLD[spelling]
    network = Small(between)
    with pytest.warns(UserWarning, match=rf"the {rule} rule holds at 1 ReLUs; 1 x {name} kept.*F\.relu"):
        ours = backward_rules(network, IMAGES, class_score(1), relu=rule)
    assert_close(ours, by_dispatch(network, IMAGES, 1, relu=rule), rtol=0, atol=0)


class Passes:
    """Counts the passes through a network."""

    def __init__(self, network):
        self.count = 0
        network.register_forward_hook(self.add)

    def add(self, *_):
        self.count += 1


TOLD = {  # by how many passes it takes to know that nothing is hidden
    "by a weight": (1, lambda x, own: x * own),
    "by a number": (1, lambda x, own: x / 3 * 2),
    "by a tensor": (2, lambda x, own: x * torch.linspace(-1, 1, 8)[:, None, None]),
    "normalised": (2, lambda x, own: (x - x.new_ones(8, 1, 1)) / x.new_full((8, 1, 1), 0.5)),
    "by each other": (1, lambda x, own: x * x.mean((2, 3), keepdim=True)),
}


@pytest.mark.parametrize("way", TOLD)
def test_what_is_multiplied_is_no_false_alarm_and_costs_at_most_a_pass(way):
    passes, between = TOLD[way]
    own = nn.Parameter(torch.linspace(-1, 1, 8)[:, None, None])
    network = Small(lambda maps: between(maps, own))
    network.own = own
    counted = Passes(network)
    ours = guided_backprop(network, IMAGES, class_score(1))
    assert counted.count == passes
    assert_close(ours, by_dispatch(network, IMAGES, 1, relu="desalinet"), rtol=0, atol=0)


class Masks(nn.Module):
    """A rectification by a mask that is kept where weights and buffers are, or is a layer's weight."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.register_buffer("kept", torch.zeros(2, 8, 8, 8))
        self.weight = nn.Parameter(torch.zeros(2, 8, 8, 8), requires_grad=False)

    def forward(self, x):
        mask, flat = (x > 0).to(x), x.flatten()
        if self.how == "a new buffer":
            self.kept = mask
        elif self.how == "a written buffer":
            self.kept.copy_(mask)
        elif self.how == "a weight":
            self.weight.data = mask
        if self.how == "a convolution":
            return F.conv2d(x.reshape(1, -1, 1, 1), mask.reshape(-1, 1, 1, 1), groups=x.numel()).view_as(x)
        if self.how == "an index":
            places = torch.where(flat > 0, torch.arange(len(flat)), len(flat))
            return torch.cat([flat, flat.new_zeros(1)])[places].view_as(x)
        return x * (self.weight if self.how == "a weight" else self.kept)


@pytest.mark.parametrize("how", ["a new buffer", "a written buffer", "a weight", "a convolution", "an index"])
def test_a_mask_is_found_wherever_it_is_kept(how):
    network = Small(Masks(how))
    with pytest.warns(UserWarning, match="by what is computed from the image"):
        guided_backprop(network, IMAGES, class_score(1))


def test_what_an_objective_does_with_the_answer_is_no_activation_of_the_network():
    clamped = Objective(frozenset({""}), lambda seen: seen[""].abs().clamp(max=2).sum(1))
    assert guided_backprop(Small(), IMAGES, clamped).any()


def test_a_way_through_the_network_that_depends_on_the_image_is_reported():
    network = Small(lambda x: (x + x if x.std() < 0.13 else x) * torch.linspace(-1, 1, 8)[:, None, None])
    with pytest.warns(UserWarning, match="1 x step that another image does not take"):
        guided_backprop(network, IMAGES * 0.01, class_score(1))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_relu_after_flatten_is_found(inplace):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.ReLU(inplace=inplace), nn.Linear(256, 4))
    assert_close(
        guided_backprop(network, IMAGES, class_score(1)),
        by_dispatch(network, IMAGES, 1, relu="desalinet"),
        rtol=0,
        atol=0,
    )
