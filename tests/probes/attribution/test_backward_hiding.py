"""Rules of backpropagation where compilation, checkpointing or user functions hide rectifications."""

import contextlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from relu_networks import IMAGES, RULES, Half, Small, built
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from fulgurite.probes.attribution.backward import backward_rules, guided_backprop
from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.objectives import class_score


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
