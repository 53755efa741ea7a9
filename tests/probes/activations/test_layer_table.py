"""The layer table of known networks."""

import pytest
import torch
import torch.nn.functional as F
from documentation import DOCS
from torch import nn
from torchvision import models

from fulgurite.models.networks import build
from fulgurite.probes.activations.layer_table import layer_table, megabytes, shape
from fulgurite.probes.activations.receptive_field import ReceptiveField
from fulgurite.probes.trace import trace


def meta(channels: int = 3, side: int = 224) -> torch.Tensor:
    return torch.empty(1, channels, side, side, device="meta")


def of(name: str, side: int = 224, **options):
    with torch.device("meta"):
        network = models.get_model(name, **options)
    return layer_table(network, meta(side=side))


@pytest.fixture(scope="module")
def vgg():
    return of("vgg16")


def test_the_totals_of_vgg16(vgg):
    assert vgg.parameters == 138_357_544
    assert vgg.activations / 1e6 == pytest.approx(15.24, abs=5e-3)
    assert 4 * vgg.activations / 1e6 == pytest.approx(61.0, abs=0.05)
    assert vgg.multiply_adds / 1e9 == pytest.approx(15.47, abs=5e-3)
    assert vgg.kept_bytes / 1e6 == pytest.approx(73.3, abs=0.05)


def test_every_row_of_the_lecture_s_table(vgg):
    """Stanford's CS231n, convolutional networks: VGGNet in detail; weights there are without biases."""
    sides = iter([224, 224, 112, 112, 112, 56, 56, 56, 56, 28, 28, 28, 28, 14, 14, 14, 14, 7])
    widths = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", *[512, 512, 512, "M"] * 2]
    wanted, before = [], 3
    for width in widths:
        if width == "M":
            wanted.append((before, next(sides), 0))
        else:
            wanted.append((width, next(sides), 9 * before * width + width))
            before = width
    rows = [(*row.output[:2], row.parameters) for row in vgg.rows if row.kind in ("Conv2d", "MaxPool2d")]
    assert rows == wanted
    linear = [(*row.output, row.parameters) for row in vgg.rows if row.kind == "Linear"]
    assert linear == [(4096, 102_764_544), (4096, 16_781_312), (1000, 4_097_000)]
    assert all(row.activations == 0 for row in vgg.rows if row.kind in ("ReLU", "Dropout"))


def test_the_rows_in_the_documentation(vgg):
    lines = (DOCS / "units.md").read_text().splitlines()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    reported = {row[0]: row[1:] for row in rows if row and row[0].startswith(("features.", "classifier."))}
    counted = [row for row in vgg.rows if row.activations]
    assert list(reported) == [row.path for row in counted]
    for row in counted:
        numbers = f"{row.parameters:,}", f"{row.activations:,}", megabytes(4 * row.activations)
        assert reported[row.path] == [row.kind, shape(row.output), *numbers, f"{row.multiply_adds:,}"]
    (total,) = [row[3:] for row in rows if row and row[0].startswith("total")]
    numbers = f"{vgg.parameters:,}", f"{vgg.activations:,}", megabytes(4 * vgg.activations)
    assert total == [*numbers, f"{vgg.multiply_adds:,}"]


class Branches(nn.Module):
    """A functional ReLU, a convolution that is used twice, its own weights, and an unused head."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.tied = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.tied.weight = self.conv.weight
        self.head, self.auxiliary = nn.Linear(4, 2), nn.Linear(4, 7)

    def forward(self, images):
        maps = self.conv(F.relu(self.conv(self.stem(images))))
        maps = self.tied(maps) * self.scale[:, None, None]
        return self.head(maps.mean((2, 3)) @ torch.ones(4, 4, device=maps.device))


def test_a_table_by_hand():
    table = layer_table(Branches(), torch.rand(5, 3, 6, 6))
    rows = {row.path: row for row in table.rows}
    assert list(rows) == ["", "stem", "conv", "tied", "head", "auxiliary"]
    parameters = {"": 4, "stem": 16, "conv": 144, "tied": 0, "head": 10, "auxiliary": 35}
    assert {path: row.parameters for path, row in rows.items()} == parameters
    maps = 4 * 36
    activations = {"": 0, "stem": maps, "conv": 2 * maps, "tied": maps, "head": 2, "auxiliary": 0}
    assert {path: row.activations for path, row in rows.items()} == activations
    assert table.activations == 3 * 36 + 4 * maps + 2
    costs = {"": 16, "stem": 3 * maps, "conv": 2 * 36 * maps, "tied": 36 * maps, "head": 8, "auxiliary": 0}
    assert {path: row.multiply_adds for path, row in rows.items()} == costs
    assert (rows["conv"].calls, rows["auxiliary"].calls) == (2, 0)
    assert rows["auxiliary"].output is None
    assert rows["stem"].kept_bytes == 4 * 3 * 36  # the image


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vit_b_16", "efficientnet_b0", "inception_v3"])
def test_rows_add_up_to_the_network(name):
    options = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        network = models.get_model(name, **options)
    side = 299 if name == "inception_v3" else 224
    table, whole = layer_table(network, meta(side=side)), trace(network, meta(side=side))[-1]
    assert table.parameters == sum(own.numel() for own in network.parameters())
    assert (table.kept_bytes, table.multiply_adds) == (whole.saved_bytes, whole.multiply_adds)
    stages = table.by_stage()
    assert 2 <= len(stages.rows) <= 9
    totals = [(one.parameters, one.activations, one.kept_bytes, one.multiply_adds) for one in (table, stages)]
    assert totals[0] == totals[1]


def test_stages_of_a_resnet_are_its_published_rows():
    """He et al. 2016, table 1."""
    rows = {row.path: row for row in of("resnet18").by_stage().rows}
    sides = {
        path: (row.output[0], row.output[-1])
        for path, row in rows.items()
        if row.output and len(row.output) == 3
    }
    wanted = {"layer1": (64, 56), "layer2": (128, 28), "layer3": (256, 14), "layer4": (512, 7)}
    assert {path: sides.get(path) for path in wanted} == wanted
    assert rows["classifier"].parameters == 513_000


def test_text_says_what_it_counts(vgg):
    field = ReceptiveField((3, 5), (1, 1), (-1, -2))
    lines = vgg.text({"features.0": field, "avgpool": None}).splitlines()
    assert lines[0].split()[:4] == ["layer", "kind", "output", "parameters"]
    (first,) = [line for line in lines if line.startswith("features.0 ")]
    assert "64 x 224 x 224" in first
    assert first.endswith("3 x 5       1")
    assert first.split()[-6:-4] == ["MB", "86,704,128"]
    (total,) = [line for line in lines if line.startswith("total ")]
    assert {"138,357,544", "15,237,608"} <= set(total.split())
    assert next(line for line in lines if "whole image" in line).startswith("avgpool")
    assert "activations: numbers in the outputs of convolutions, linear layers and pooling" in lines[-3]
    assert not any(line != line.rstrip() for line in lines)


def test_our_own_networks_with_normalisation():
    network = build("small_vgg", classes=10, channels=1)
    table = layer_table(network, meta(1, 32))
    assert table.parameters == sum(own.numel() for own in network.parameters())
    assert next(row.kind for row in table.rows) == "Normalise"


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(0, 3, 32, 32), "no images to run the network on; wanted one"),
        (torch.rand(1, 1, 224, 224), "AlexNet cannot be run on an image of shape 1 x 224 x 224: "),
        (meta(side=8), "AlexNet cannot be run on an image of shape 3 x 8 x 8: "),
    ],
)
def test_images_that_do_not_fit_are_reported_in_a_sentence(images, words):
    with pytest.raises(ValueError, match=words) as error:
        layer_table(models.alexnet(num_classes=2), images)
    assert "\n" not in str(error.value)
