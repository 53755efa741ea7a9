"""Fine-tuning strategies, and the stages of networks."""

import re

import pytest
import torch
from torch import nn
from torchvision import models
from tuned_training import EPOCHS, Small, Tuned, changed, fitted, reported, state

from fulgurite.models.finetuning import pace
from fulgurite.models.networks import build
from fulgurite.models.stages import stages_of
from fulgurite.models.strategies import schedule_of

# the keeper of checkpoints is not needed to go on from one
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


def test_strategies_are_tables_over_the_stages_of_a_network():
    network = build("small_vgg", classes=3)
    patterns = [stage.pattern for stage in stages_of(network)]
    assert patterns == [rf"conv{n}\.|norm{n}\." for n in (1, 2, 3)] + [r"hidden\.", r"classifier\."]
    layerwise = pytest.approx([0.0625, 0.125, 0.25, 0.5, 1.0])
    assert reported(schedule_of("linear", network)) == [(0, [None] * 4 + [1.0])]
    assert reported(schedule_of("last", network)) == [(0, [None] * 3 + [1.0] * 2)]
    assert reported(schedule_of("last", network, stages=3)) == [(0, [None] + [1.0] * 4)]
    assert (
        reported(schedule_of("full", network))
        == reported(schedule_of("scratch", network))
        == [(0, [1.0] * 5)]
    )
    assert reported(schedule_of("layerwise", network, decay=0.5)) == [(0, layerwise)]
    gradual = schedule_of("gradual", network, decay=0.5, every=2)
    for phase, (epoch, table) in enumerate(gradual):
        assert epoch == 2 * phase
        assert [*table.values()] == [None] * (4 - phase) + layerwise.expected[4 - phase :]
    assert len(gradual) == 5
    assert all([*table] == patterns for _, table in gradual)


@pytest.mark.parametrize("strategy", ["linear", "last", "layerwise", "gradual", "full", "scratch"])
def test_under_every_strategy_the_frozen_stay_and_the_rest_learns(strategy, tmp_path):
    network = build("small_vgg", classes=3)
    schedule = schedule_of(strategy, network)
    model = Tuned(schedule, network=network)
    states = [state(network)]
    fitted(tmp_path, model)
    states += model.states
    table = dict(schedule)
    for epoch in range(EPOCHS):
        factors = table[max(start for start in table if start <= epoch)]
        learning = re.compile("|".join(pattern for pattern, factor in factors.items() if factor is not None))
        assert changed(states[epoch], states[epoch + 1]) == {
            name for name in states[0] if learning.match(name)
        }


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"strategy": "layer_wise"}, "no strategy 'layer_wise'; nearest: layerwise"),
        ({"strategy": "last", "stages": 5}, "stages=5; this SmallVGG has 4 before its head"),
        ({"strategy": "last", "stages": 0}, "stages=0"),
        ({"strategy": "layerwise", "decay": 0.0}, "decay=0.0"),
        ({"strategy": "gradual", "every": 0}, "every=0"),
        ({"strategy": "linear", "shape": (1, 32, 32)}, "takes 3 channels, the images have 1"),
    ],
    ids=str,
)
def test_a_strategy_that_cannot_be_is_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        schedule_of(network=build("small_vgg", classes=3), **options)


def test_a_network_for_one_size_raises_a_clear_error():
    with pytest.raises(ValueError, match=r"Small cannot take an image of 3 x 224 x 224 .*shape=\(channels"):
        stages_of(Small())
    stages = stages_of(Small(), shape=(3, 12, 12))
    assert [stage.name for stage in stages] == ["stem|layer1", "layer2", "head"]


def test_a_network_without_a_head_has_no_stages():
    with pytest.raises(ValueError, match="Sequential has no head"):
        stages_of(nn.Sequential(nn.ReLU()))


def test_stages_follow_the_calls_and_take_along_whatever_lies_between():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.deep, self.deep_norm = nn.Conv2d(4, 8, 3, 2), nn.BatchNorm2d(8, affine=False)
            self.aux = nn.Linear(4, 3)
            self.shallow = nn.Conv2d(1, 4, 3, 2)
            self.fc = nn.Linear(8, 3)

        def forward(self, images):
            return self.fc(self.deep_norm(self.deep(self.scale * self.shallow(images))).mean((2, 3)))

    stem, deep, head = (stage.pattern for stage in stages_of(Odd(), shape=(1, 32, 32)))
    assert re.match(stem, "shallow.weight")
    assert re.match(deep, "deep_norm.running_mean")
    assert re.match(head, "aux.weight")
    assert re.match(head, "fc.weight")
    assert re.match(f"{stem}|{deep}", "scale")


def test_finding_stages_changes_nothing():
    network = build("torchvision/squeezenet1_1", classes=3).train()
    network.requires_grad_(False)
    before, draws = state(network), torch.get_rng_state()
    network.classifier[0].eval()
    stages_of(network)
    assert not changed(before, state(network))
    assert torch.equal(torch.get_rng_state(), draws)
    assert [name for name, part in network.named_modules() if not part.training] == ["classifier.0"]
    assert not any(own.requires_grad or own.is_meta for own in network.parameters())
    assert not any(part._forward_hooks for part in network.modules())


def test_stages_of_a_compiled_network_are_those_of_the_bare_one():
    network = build("small_cnn", classes=3)
    assert stages_of(torch.compile(network, backend="eager")) == stages_of(network)


def called_last(network, stages, shape):
    """When each stage last ran a convolution or linear layer in a plain pass, by hooks."""
    calls, hooks = [], []
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            hooks.append(part.register_forward_hook(lambda *_, name=name: calls.append(name)))
    with torch.no_grad():  # no values: the order does not depend on them
        network.to("meta").eval()(torch.zeros(1, *shape, device="meta"))
    for hook in hooks:
        hook.remove()
    fits = [[at for at, name in enumerate(calls) if re.match(stage.pattern, f"{name}.")] for stage in stages]
    assert sum(map(len, fits)) == len(calls)
    return [at[-1] for at in fits]


def check_stages(network, size, head):
    stages = stages_of(network)
    names = [name for name, _ in network.named_parameters()]
    for name in names:
        assert sum(bool(re.match(stage.pattern, name)) for stage in stages) == 1, name
    assert {name.rpartition(".")[0] for name in names if re.match(stages[-1].pattern, name)} == {*head}
    assert 3 <= len(stages) <= 8
    order = called_last(network, stages, (3, size, size))
    assert order == sorted(order)
    assert len({stage.name for stage in stages}) == len(stages)
    pace(network, 0.1, dict.fromkeys((stage.pattern for stage in stages), 1.0))


OWN = ["small_vgg", "all_conv", "small_cnn", "strided_cnn", "preact_resnet18", "resnet18_3x3"]
FAST = {
    "torchvision/resnet18": "fc",
    "torchvision/squeezenet1_1": "classifier.1",
    "torchvision/shufflenet_v2_x0_5": "fc",
    "torchvision/mobilenet_v2": "classifier.1",
    "torchvision/mobilenet_v3_small": "classifier.3",
    "torchvision/mnasnet0_5": "classifier.1",
    "torchvision/regnet_x_400mf": "fc",
    "torchvision/googlenet": "fc",
    "timm/resnet18": "fc",
    "timm/mobilenetv3_small_050": "classifier",
    "timm/convnext_atto": "head.fc",
    "timm/regnetx_002": "head.fc",
    "timm/efficientnet_lite0": "classifier",
    "timm/lcnet_050": "classifier",
    "timm/repvgg_a0": "head.fc",
    "timm/dla46_c": "fc",
}
SLOW = {
    "torchvision/shufflenet_v2_x1_0": "fc",
    "torchvision/squeezenet1_0": "classifier.1",
    "torchvision/resnet34": "fc",
    "torchvision/efficientnet_b0": "classifier.1",
    "torchvision/resnet50": "fc",
    "torchvision/densenet121": "classifier",
    "torchvision/alexnet": "classifier.6",
    "torchvision/vgg11": "classifier.6",
    "torchvision/vgg16_bn": "classifier.6",
    "torchvision/inception_v3": "fc",
    "torchvision/convnext_tiny": "classifier.2",
    "torchvision/efficientnet_v2_s": "classifier.1",
    "torchvision/wide_resnet50_2": "fc",
    "torchvision/resnext50_32x4d": "fc",
    "torchvision/regnet_y_400mf": "fc",
    "torchvision/densenet161": "classifier",
    "torchvision/maxvit_t": "classifier.5",
    "timm/vgg16_bn": "head.fc",
    "timm/densenet121": "classifier",
    "timm/hrnet_w18_small": "classifier",
    "timm/inception_v4": "last_linear",
    "timm/inception_resnet_v2": "classif",
    "timm/legacy_xception": "fc",
    "timm/xception41": "head.fc",
    "timm/tresnet_m": "head.fc",
    "timm/nfnet_f0": "head.fc",
    "timm/resnetv2_50": "head.fc",
    "timm/dpn68": "classifier",
    "timm/dla34": "fc",
    "timm/vovnet39a": "head.fc",
    "timm/ghostnet_050": "classifier",
    "timm/rexnet_100": "head.fc",
    "timm/selecsls42": "fc",
    "timm/poolformer_s12": "head.fc",
    "timm/rdnet_tiny": "head.fc",
    "timm/mobileone_s0": "head.fc",
    "timm/fastvit_t8": "head.fc",
    "timm/convmixer_768_32": "head",
    "timm/pnasnet5large": "last_linear",
    "timm/hgnetv2_b0": "head.fc",
    "timm/efficientvit_b0": "head.classifier.4",
}


@pytest.mark.parametrize("name", OWN)
def test_every_parameter_of_our_networks_is_in_one_stage(name):
    check_stages(build(name, classes=5), 32, ["fc" if name == "resnet18_3x3" else "classifier"])


@pytest.mark.parametrize("name", FAST)
def test_every_parameter_is_in_one_stage_and_stages_go_by_depth(name):
    check_stages(build(name, classes=5), 96, [FAST[name]])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_parameter_is_in_one_stage_of_larger_networks(name):
    network = build(name, classes=5)
    check_stages(network, 224, [SLOW[name]])


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("torchvision/resnet18", ["conv1|bn1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("resnet18_3x3", ["conv1|bn1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("preact_resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4|norm", "classifier"]),
        ("small_cnn", ["conv1|conv2", "hidden", "classifier"]),
        (
            "torchvision/squeezenet1_1",
            [
                "features.0",
                "features.3|features.4",
                "features.6|features.7",
                "features.9..features.12",
                "classifier",
            ],
        ),
        (
            "timm/mobilenetv3_small_050",
            [
                "conv_stem|bn1",
                "blocks.0",
                "blocks.1",
                "blocks.2|blocks.3",
                "blocks.4|blocks.5",
                "conv_head",
                "classifier",
            ],
        ),
    ],
)
def test_stages_are_those_a_reader_would_draw(name, stages):
    assert [stage.name for stage in stages_of(build(name, classes=5))] == stages


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100"])
def test_a_network_has_the_same_stages_in_both_libraries(name):
    theirs = {"mobilenetv3_small_100": "mobilenet_v3_small"}.get(name, name)
    counts = [len(stages_of(build(full, classes=5))) for full in (f"timm/{name}", f"torchvision/{theirs}")]
    assert counts[0] == counts[1]


def test_auxiliary_heads_go_with_the_head():
    network = models.get_model("googlenet", weights=None, num_classes=5, init_weights=False)
    *_, head = stages_of(network)
    heads = {name.partition(".")[0] for name, _ in network.named_parameters() if re.match(head.pattern, name)}
    assert heads == {"aux1", "aux2", "fc"}
