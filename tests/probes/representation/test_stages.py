"""Where the stages of networks end."""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from staged_network import IMAGES, small
from torch import nn

from fulgurite.models.small_networks import AllConv, PreActResNet18, SmallVGG
from fulgurite.probes.representation.stages import image_features, stages


def resnet() -> nn.Module:
    return torchvision.models.resnet18(num_classes=3)


class Wrapped(nn.Module):
    """A body from elsewhere, and a head; the convolution after the pooling is not used."""

    def __init__(self):
        super().__init__()
        self.body, self.spare = resnet(), nn.Conv2d(8, 8, 1)
        self.body.fc = nn.Identity()
        self.head = nn.Linear(512, 3)

    def forward(self, images):
        return self.head(self.body(images))


class Functional(nn.Module):
    """Calls its functions itself, one layer twice, and outputs more than a tensor on the way."""

    class Two(nn.Module):
        def forward(self, x):
            return x, x

    def __init__(self):
        super().__init__()
        self.one, self.twice, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), Functional.Two()
        self.three, self.head = nn.Conv2d(4, 4, 3), nn.Linear(4, 3)

    def forward(self, images):
        x = F.relu(self.twice(self.twice(self.one(images))))
        return self.head(F.relu(self.three(self.two(x)[0])).mean((2, 3)))


FAST = {
    "resnet18": (resnet, ["relu", "layer1", "layer2", "layer3", "layer4"]),
    "squeezenet": (
        lambda: torchvision.models.squeezenet1_0(num_classes=3),
        ["features.1", "features.5", "features.10", "features"],
    ),
    "alexnet": (
        lambda: torchvision.models.alexnet(num_classes=3),
        [*(f"features.{place}" for place in (1, 4, 7, 9, 11)), "classifier.2", "classifier.5"],
    ),
    "shufflenet": (
        lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=3),
        ["conv1", "stage2", "stage3", "conv5"],
    ),
    "mobilenet_v2": (
        lambda: torchvision.models.mobilenet_v2(num_classes=3),
        ["features.1", "features.3", "features.6", "features.13", "features"],
    ),
    "timm resnet10t": (
        lambda: timm.create_model("resnet10t", num_classes=3),
        ["conv1.2", "conv1.5", "act1", "layer1", "layer2", "layer3", "layer4"],
    ),
    "timm convnext": (
        lambda: timm.create_model("convnext_atto", num_classes=3),
        ["stem", "stages.0", "stages.1", "stages.2", "stages"],
    ),
    "small_vgg": (lambda: SmallVGG(3, 3), ["relu1", "relu2", "relu3", "relu4"]),
    "all_conv": (lambda: AllConv(3, 3), [f"relu{place}" for place in range(1, 7)]),
    "preact": (lambda: PreActResNet18(3, 3, width=8), ["layer1", "layer2", "layer3", "relu"]),
    "wrapped": (Wrapped, ["body.relu", "body.layer1", "body.layer2", "body.layer3", "body.layer4"]),
    "functional": (Functional, ["one", "three"]),
    "sequential": (small, ["2", "5", "9"]),
}


@pytest.mark.parametrize(("build", "expected"), FAST.values(), ids=FAST)
def test_stages_end_where_parts_with_weights_do(build, expected):
    torch.manual_seed(0)
    assert stages(build(), torch.rand(2, 3, 64, 64) if build is not small else IMAGES) == expected


def test_pooling_to_the_same_size_ends_no_stage():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(14), nn.Flatten(), nn.Linear(784, 2)
    )
    assert stages(network, IMAGES) == ["1"]


class Branches(nn.Module):
    """Works on three sizes at once."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(4, 4, 3, stride, 1) for stride in (1, 2, 4))

    def forward(self, x):
        return [part(x) for part in self.parts]


def test_what_puts_out_several_maps_is_not_looked_into():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.branches = nn.Conv2d(3, 4, 3, padding=1), Branches()
            self.joined, self.head = nn.Conv2d(4, 8, 1), nn.Linear(8, 2)

        def forward(self, images):
            fine, *coarse = self.branches(self.stem(images))
            joined = fine + sum(F.interpolate(maps, fine.shape[2:]) for maps in coarse)
            return self.head(self.joined(joined).mean((2, 3)))

    assert stages(Branching(), IMAGES) == ["stem", "joined"]


SLOW = [
    *(f"torchvision {name}" for name in ("vgg11_bn", "densenet121", "efficientnet_b0", "convnext_tiny")),
    *(f"torchvision {name}" for name in ("regnet_x_400mf", "mnasnet0_5", "googlenet", "mobilenet_v3_small")),
    *(
        f"timm {name}"
        for name in ("dla34", "hrnet_w18_small", "ghostnet_050", "repvgg_a0", "convmixer_768_32")
    ),
    *(f"timm {name}" for name in ("xception41", "nfnet_l0", "tresnet_m", "densenet121", "resnetblur50")),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet")
def test_any_cnn_has_stages_from_the_stem_to_the_head(name):
    library, name = name.split()
    if library == "timm":
        network = timm.create_model(name, num_classes=3)
    else:
        network = torchvision.models.get_model(name, weights=None, num_classes=3)
    found = stages(network, torch.rand(1, 3, 64, 64))
    assert 3 <= len(found) <= 8
    assert len(set(found)) == len(found)
    seen = image_features(network, torch.rand(2, 3, 64, 64), found)
    # deeper ones have as many channels or more
    assert seen[found[-1]].shape[1] >= seen[found[0]].shape[1]


def test_long_rows_are_cut_to_so_many():
    network = nn.Sequential(
        *(part for _ in range(30) for part in (nn.Linear(9, 9), nn.ReLU())), nn.Linear(9, 2)
    )
    network.insert(0, nn.Flatten())
    found = stages(network, torch.rand(1, 1, 3, 3), max_stages=5)
    assert found == ["12", "24", "36", "48", "60"]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Flatten(), "no linear layer and no convolution"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), "no stage"),
    ],
)
def test_a_network_without_stages_is_reported(network, message):
    with pytest.raises(ValueError, match=message):
        stages(network, IMAGES)
