"""One logit, one label, label sets, maps and outputs: as classes, and as objectives."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fulgurite.probes.attribution.gradient import gradient
from fulgurite.probes.objectives import Objective, class_score, log_probability, probability
from fulgurite.probes.record import record
from fulgurite.probes.task_objectives import (
    label_probability,
    label_score,
    mask_score,
    output,
    pixel_score,
)
from fulgurite.probes.tasks import LabelSets, OneLabel, answers, set_name, two_sided


def value(network: nn.Module, images: Tensor, objective: Objective) -> Tensor:
    with record(network, [""]) as outputs:
        network(images)
    return objective.value(outputs)


class Maps(nn.Module):
    """A 1 x 1 convolution: a logit for each of two classes at each pixel."""

    def __init__(self, classes: int = 2):
        super().__init__()
        self.conv = nn.Conv2d(3, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


class Flat(Maps):
    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3))


def test_two_sides_of_a_logit_are_its_sigmoid_and_its_binary_cross_entropy():
    logit, labels = 4 * torch.randn(20, 1), torch.arange(20) % 2
    both = two_sided(logit)
    torch.testing.assert_close(both.softmax(1)[:, 1], logit.sigmoid()[:, 0])
    expected = F.binary_cross_entropy_with_logits(logit[:, 0], labels.float())
    torch.testing.assert_close(F.cross_entropy(both, labels), expected)
    assert torch.equal(two_sided(logit[:, 0]), both)
    with pytest.raises(ValueError, match=r"logits \(20, 2\); wanted one for each image"):
        two_sided(both)


def test_the_largest_label_set_is_the_images_own_exactly_if_every_label_is_right():
    targets = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))[[1, 6, 7, 7]]
    sets = LabelSets(targets)
    assert torch.equal(sets.sets[sets.numbers], targets.bool())
    logits = torch.randn(200, 3)
    for row, number in zip(targets, sets.numbers, strict=True):
        found, margins = sets(logits), logits * (2 * row - 1)
        right = (margins > 0).all(1)
        assert torch.equal(found.argmax(1) == number, right)
        others = found.clone()
        others[:, number] = -torch.inf
        lead = found[:, number] - others.max(1).values
        torch.testing.assert_close(lead[right], margins[right].min(1).values)
    assert sets.names(("a", "b", "c"))[int(sets.numbers[1])] == "a + b"
    assert set_name(torch.zeros(3), "abc") == "none"


def test_a_network_within_answers_is_unchanged_afterwards():
    network, images = Flat(1), torch.rand(2, 3, 4, 4)
    with answers(network, two_sided):
        assert network(images).shape == (2, 2)
    assert network(images).shape == (2, 1)
    assert not network._forward_hooks
    network = Flat(3)
    with answers(network, OneLabel(2)):
        assert torch.equal(network(images)[:, 1], network.forward(images)[:, 2] / 2)
    with pytest.raises(ZeroDivisionError), answers(network, OneLabel(2)):
        raise ZeroDivisionError
    assert not network._forward_hooks


def test_one_logit_has_two_sides_for_objectives():
    network, images = Flat(1), torch.rand(5, 3, 4, 4)
    logit, sides = network(images)[:, 0], torch.arange(5) % 2
    torch.testing.assert_close(value(network, images, probability(1)), logit.sigmoid())
    torch.testing.assert_close(value(network, images, probability(0)), (-logit).sigmoid())
    torch.testing.assert_close(
        value(network, images, class_score(1) - class_score(0)), value(network, images, output())
    )
    chosen = value(network, images, log_probability(sides))
    torch.testing.assert_close(chosen, F.logsigmoid(logit * (2 * sides - 1)))
    with pytest.raises(ValueError, match="no class 2: there are 2"):
        value(network, images, class_score(2))


def test_a_label_is_read_by_itself():
    network, images = Flat(3), torch.rand(2, 3, 4, 4)
    logits = network(images)
    torch.testing.assert_close(value(network, images, label_probability(2)), logits[:, 2].sigmoid())
    torch.testing.assert_close(value(network, images, label_score(2, present=False)), -logits[:, 2])
    assert label_score(2, present=False).name == "not label 2"
    torch.testing.assert_close(value(network, images, output(torch.tensor([0, 2]))), logits[[0, 1], [0, 2]])


def test_a_pixels_logit_depends_only_on_the_pixel_and_a_masks_on_the_mask():
    network, images = Maps(), torch.rand(2, 3, 4, 4)
    weight = network.conv.weight[1, :, 0, 0]
    at = gradient(network, images, pixel_score(1, 2, 3))
    expected = torch.zeros_like(images)
    expected[:, :, 2, 3] = weight
    torch.testing.assert_close(at, expected)
    masks = torch.rand(2, 4, 4) < 0.5
    over = gradient(network, images, mask_score(1, masks))
    torch.testing.assert_close(over, masks[:, None] * weight[:, None, None])
    # a mask of the image's size, for a coarser map of logits
    coarse = nn.Sequential(nn.AvgPool2d(2), Maps())
    half = torch.zeros(4, 4, dtype=torch.bool)
    half[:2] = True
    torch.testing.assert_close(
        value(coarse, images, mask_score(0, half)), coarse(images)[:, 0, :1].flatten(1).sum(1)
    )
    with pytest.raises(ValueError, match="wanted a map of logits"):
        value(Flat(), images, pixel_score(0, 0, 0))
    with pytest.raises(ValueError, match="no row 4: there are 4"):
        value(network, images, pixel_score(0, 4, 0))
