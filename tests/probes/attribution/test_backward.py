import contextlib
import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from dispatch_oracle import Rule, by_dispatch, to_the_centres
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from fulgurite.probes.attribution.backward import backward_rules, deconvnet, guided_backprop
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.attribution.graph import kind, nodes_of
from fulgurite.probes.objectives import Objective, channel, class_score, unit

IMAGES = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))
RULES = ["deconvnet", "desalinet"]


class Small(nn.Module):
    """Two convolutions with something between them, and a ReLU before the linear layer."""

    def __init__(self, between=F.relu, pool=nn.Identity()):  # noqa: B008
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.between, self.pool, self.last = between, pool, nn.LazyLinear(4)
        self.eval()(IMAGES[:1])

    def forward(self, images):
        maps = self.pool(self.between(self.first(images)))
        return self.last(F.relu(self.second(maps)).flatten(1))


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    library, _, model = name.partition("/")
    if library == "timm":
        return timm.create_model(model, pretrained=False).eval()
    options = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(model, weights=None, **options).eval()


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


@pytest.mark.parametrize(
    "name", [*ONLY_RELUS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_the_rules_are_exact_in_every_architecture(name):
    network, side = built(name), {**ONLY_RELUS, **SLOW}[name]
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    for rule in RULES:
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


class PreActivation(nn.Module):
    """A ReLU opens the branch of a residual block, and what it gets goes on beside it."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.branch, self.last = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Linear(512, 4),
        )
        self.activation = activation

    def forward(self, images):
        maps = self.stem(images)
        maps = maps + self.branch(self.activation(maps))
        return self.last(self.activation(maps).flatten(1))


class Parallel(nn.Module):
    """One ReLU module in two branches and after them."""

    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(512, 4)
        self.activation = activation

    def forward(self, images):
        left, right = self.left(images), self.right(images)
        left, right = self.activation(left), self.activation(right)
        return self.last(self.activation(torch.cat([left - right, left * right], 1)).flatten(1))


HARD = {
    "functional": lambda: Small(F.relu),
    "ReLU6": lambda: Small(nn.ReLU6()),
    "before the branch": lambda: PreActivation(nn.ReLU()),
    "before the branch, ReLU6": lambda: PreActivation(F.relu6),
    "in parallel": lambda: Parallel(nn.ReLU()),
    "in parallel, ReLU6": lambda: Parallel(nn.ReLU6(inplace=True)),
}


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
def test_a_relu_may_be_spelt_as_one_likes(spelling, rule):
    expected = backward_rules(Small(F.relu), IMAGES, class_score(1), relu=rule)
    assert not torch.equal(expected, gradient(Small(F.relu), IMAGES, class_score(1)))
    ours = backward_rules(Small(SPELLINGS[spelling]), IMAGES, class_score(1), relu=rule)
    assert torch.equal(ours, expected)


class Half(nn.Module):
    """Some channels go through a ReLU, in place on a view."""

    def __init__(self, relu):
        super().__init__()
        self.relu = relu

    def forward(self, maps):
        self.relu(maps[:, :4])
        return maps


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
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", UNTOLD)
def test_what_may_be_a_relu_beside_another_is_said(spelling, rule):
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


def test_a_way_through_the_network_that_depends_on_the_image_is_said():
    network = Small(lambda x: (x + x if x.std() < 0.13 else x) * torch.linspace(-1, 1, 8)[:, None, None])
    with pytest.warns(UserWarning, match="1 x way through the network that depends on the image"):
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


def compiled(backend: str):
    return lambda network: torch.compile(network, backend=backend)


def compiled_in_place(network):
    network.compile(backend="eager")
    return network


def compiled_inside(network):
    network.second = torch.compile(network.second, backend="eager")
    network.pool = torch.compile(network.pool, backend="eager")
    network.forward = torch.compile(network.forward, backend="eager")
    return network


def checkpointed(network, **options):
    body = network.forward
    network.forward = lambda images: checkpoint(body, images, **options)
    return network


def traced(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.trace(network, IMAGES)


HIDING = {
    "compiled": compiled("eager"),
    "compiled in place": compiled_in_place,
    "compiled inside": compiled_inside,
    "traced": traced,
    "exported": lambda network: torch.export.export(network, (IMAGES,)).module(),
    "checkpointed": lambda network: checkpointed(network, use_reentrant=False),
    "symbolically traced": torch.fx.symbolic_trace,
}
SLOWLY_HIDING = {"inductor": compiled("inductor"), "aot_eager": compiled("aot_eager")}


@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize(
    "way", [*HIDING, *(pytest.param(way, marks=pytest.mark.slow) for way in SLOWLY_HIDING)]
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_the_rules_are_exact_behind(way, ran):
    torch.compiler.reset()
    network = {**HIDING, **SLOWLY_HIDING}[way](Small(nn.ReLU()))
    if ran:  # some optimise what has run for some time
        for _ in range(3):
            network(IMAGES.clone().requires_grad_()).sum().backward()
    for rule in RULES:
        expected = backward_rules(Small(nn.ReLU()), IMAGES, class_score(1), relu=rule)
        assert_close(backward_rules(network, IMAGES, class_score(1), relu=rule), expected, rtol=0, atol=0)


@pytest.mark.parametrize("way", ["compiled", "symbolically traced", "checkpointed", "traced", "exported"])
def test_a_relu_in_place_on_a_view_is_exact_or_refused_behind(way):
    torch.compiler.reset()
    expected = guided_backprop(Small(Half(nn.ReLU(inplace=True))), IMAGES, class_score(1))
    network = HIDING[way](Small(Half(nn.ReLU(inplace=True))))
    with contextlib.suppress(ValueError) if way in ("traced", "exported") else contextlib.nullcontext():
        assert_close(guided_backprop(network, IMAGES, class_score(1)), expected, rtol=0, atol=0)


class OwnFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps):
        ctx.save_for_backward(maps)
        return maps.clamp(min=0)

    @staticmethod
    def backward(ctx, grad):
        return grad * (ctx.saved_tensors[0] > 0)


@pytest.mark.parametrize("rule", [*RULES, "salinet"])
def test_what_hides_its_inside_is_refused_with_the_remedy(rule):
    remedy = r"hides from autograd what is inside.*use_reentrant=False"
    with pytest.raises(ValueError, match=rf"1 x OwnFunction {remedy}"):
        backward_rules(Small(OwnFunction.apply), IMAGES, class_score(1), relu=rule)
    with pytest.raises(ValueError, match=rf"1 x CheckpointFunction {remedy}"):
        backward_rules(checkpointed(Small(), use_reentrant=True), IMAGES, class_score(1), relu=rule)


def only(activation, *, last=nn.Identity()) -> nn.Module:  # noqa: B008
    torch.manual_seed(0)

    class Between(nn.Module):
        def forward(self, maps):
            return activation(maps)

    return nn.Sequential(nn.Conv2d(3, 4, 3), Between(), nn.Flatten(), nn.Linear(256, 4), last)


def gated(maps):
    return maps * torch.sigmoid(F.relu(maps.mean((2, 3), keepdim=True)))


def gated_hard(maps):
    return maps * (F.relu6(F.relu(maps.mean((2, 3), keepdim=True)) + 3) / 6)


NOT_RELUS = {
    "SiLU": nn.SiLU(),
    "GELU": nn.GELU(),
    "LeakyReLU": nn.LeakyReLU(),
    "ELU": F.elu,
    "Hardswish": F.hardswish,
    "Hardtanh": nn.Hardtanh(),
    "threshold at 1": nn.Threshold(1, 0),
    "clamp at 1e-6": lambda x: x.clamp(min=1e-6),
    "clamp from above": lambda x: x.clamp(max=0),
    "maximum at 1": lambda x: torch.maximum(x, torch.ones_like(x)),
    "RReLU": nn.RReLU(),
    "Hardshrink": nn.Hardshrink(),
    "Softshrink": nn.Softshrink(),
    "Softsign": nn.Softsign(),
    "a mask": lambda x: x * (x > 0),
    "a mask, and a global context": lambda x: (x + F.relu(x.mean((2, 3), keepdim=True))) * (x > 0),
    "none": lambda x: x,
    "gates": gated,
    "hard gates": gated_hard,
    "hard swish by hand": lambda x: x * (F.relu6(x + 3) / 6),
    "SiLU by hand": lambda x: x * torch.sigmoid(x),
    "LeakyReLU in place on a view": lambda x: F.leaky_relu(x.view(x.shape), inplace=True),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("what", NOT_RELUS)
def test_without_a_relu_on_the_way_there_is_no_map(what, rule):
    network = only(NOT_RELUS[what])
    with pytest.raises(ValueError, match=f"no ReLU on the way.*the {rule} rule would change nothing"):
        backward_rules(network, IMAGES, class_score(1), relu=rule)
    plain = backward_rules(network, IMAGES, class_score(1), relu="salinet")
    assert torch.equal(plain, gradient(network, IMAGES, class_score(1)))


def beside_zeros(pool):
    return lambda x: pool(torch.stack([x.flatten(1), torch.zeros_like(x.flatten(1))], 2))[..., 0].view_as(x)


OF_ITSELF = {
    "swish": lambda x: x * torch.sigmoid(x),
    "QuickGELU": lambda x: x * torch.sigmoid(1.702 * x),
    "hard swish": lambda x: x * F.hardsigmoid(x),
    "hard swish by ReLU6": lambda x: x * F.relu6(x + 3) / 6,
    "a steep sigmoid": lambda x: x * torch.sigmoid(1e6 * x),
    "a steep softmax": lambda x: x * torch.stack([x, torch.zeros_like(x)]).mul(1e6).softmax(0)[0],
    "x + relu(-x)": lambda x: x + F.relu(-x),
    "x less a clamp of -x": lambda x: x - (-x).clamp(min=0) * -1,
    "max-pooling with 0": beside_zeros(lambda pairs: F.max_pool1d(pairs, 2)),
    "adaptive max-pooling with 0": beside_zeros(lambda pairs: F.adaptive_max_pool1d(pairs, 1)),
}
NOT_OF_ITSELF = {
    "a residual": lambda x: x + F.relu(F.conv2d(x, torch.ones(4, 4, 1, 1))),
    "a residual after its ReLU": lambda x: (lambda y: y + F.conv2d(y, torch.ones(4, 4, 1, 1)))(F.relu(x)),
    "squeeze and excitation": lambda x: (
        x * torch.sigmoid(F.conv2d(x.mean((2, 3), keepdim=True), torch.ones(4, 4, 1, 1)))
    ),
    "a gated linear unit": lambda x: (lambda a, b: torch.cat([a * torch.sigmoid(b)] * 2, 1))(*x.chunk(2, 1)),
    "a scaled sum": lambda x: x + 0.5 * x,
    "a square": lambda x: F.relu(x) ** 2,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("what", OF_ITSELF)
def test_an_activation_by_hand_beside_a_relu_is_named(what, rule):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), only(OF_ITSELF[what]))
    with pytest.warns(
        UserWarning, match="1 x (Mul|Add|Sub|.*MaxPool).* of a map and .* kept their own gradient"
    ):
        backward_rules(network, IMAGES, class_score(1), relu=rule)


@pytest.mark.parametrize("what", NOT_OF_ITSELF)
def test_a_branch_or_a_gate_of_other_maps_is_no_activation(what):
    guided_backprop(
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), only(NOT_OF_ITSELF[what])), IMAGES, class_score(1)
    )


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("nfnet_f0", 32),
        ("gcresnet33ts", 64),  # in global contexts, that are added
        ("lcnet_050", 32),
        ("convnext_atto", 64),
        ("darknet53", 32),
        ("edgenext_xx_small", 64),
    ],
)
def test_networks_with_relus_nowhere_or_in_gates_alone_are_refused(name, side):
    network, images = built(f"timm/{name}"), torch.rand(1, 3, side, side)
    for rule in RULES:
        with pytest.raises(ValueError, match=r"no ReLU on the way.*there is \d+ x"):
            backward_rules(network, images, class_score(0), relu=rule)


@pytest.mark.parametrize(("relu", "pool"), [("relu", "switches"), ("salinet", "center")])
def test_rules_have_names(relu, pool):
    with pytest.raises(Exception, match=r"relu|pool"):
        backward_rules(Small(), IMAGES, class_score(1), relu=relu, pool=pool)


def one_convolution() -> nn.Sequential:
    """Captum's BasicModel_ConvNet_One_Conv."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4), nn.ReLU())
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[0].bias.copy_(torch.tensor([-50.0, -75.0]))
        network[3].weight.copy_(torch.tensor([1.0] * 5 + [-1.0] * 3).expand(4, 8))
        network[3].bias.zero_()
    return network


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


@pytest.mark.parametrize("name", CAPTUM_IS_RIGHT)
def test_captum_says_the_same_where_each_relu_is_a_module_of_its_own(name, captum):
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


def test_autograd_tells_what_the_rules_ask_of_it():
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
