"""Shape bias of predictions by hand."""

import math

import pytest
import torch
from torch import nn

from fulgurite.data.shapes import Shapes
from fulgurite.probes.predict import predict
from fulgurite.probes.robustness.shape_bias import (
    SIXTEEN,
    ShapeBias,
    category_probabilities,
    shape_answers,
    shape_bias,
)


def test_predictions_of_a_third_class_do_not_count():
    logits = torch.eye(4)[[0, 1, 2, 3]]
    shapes, textures = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 3, 1])
    assert shape_bias(logits, shapes, textures) == 1
    assert shape_bias(logits, textures, shapes) == 0
    assert shape_bias(logits, torch.tensor([0, 0, 2, 0]), torch.tensor([1, 1, 3, 1])) == 2 / 3
    assert shape_bias(logits, (logits.argmax(1) + 1) % 4, (logits.argmax(1) + 2) % 4).isnan()


class ByHand(nn.Module):
    """Separates striped discs from plain crescents by all pixels that differ from the background."""

    def forward(self, images):
        shape = ((images - images[:, :, :1, :1]).abs().amax(1) > 0.03).float()
        area = shape.sum((1, 2))
        crescent = self.crescent(images, shape, area) - 0.5
        return 20 * torch.stack([-crescent, crescent], 1)


class SeesShapes(ByHand):
    """The second moment of the shape's pixels, which no texture changes: a disc has the least of its area."""

    def crescent(self, images, shape, area):
        side = torch.arange(images.shape[-1], dtype=images.dtype)
        (y, x) = torch.meshgrid(side, side, indexing="ij")
        x, y = (one - (one * shape).sum((1, 2), keepdim=True) / area[:, None, None] for one in (x, y))
        moment = ((x**2 + y**2) * shape).sum((1, 2))
        return (area**2 / (2 * math.pi * moment) < 0.9).float()


class SeesTextures(ByHand):
    """The variance of the colours of the shape's pixels, which stay the same wherever they lie."""

    def crescent(self, images, shape, area):
        shape, area = shape[:, None], area[:, None, None, None]
        mean = (images * shape).sum((2, 3), keepdim=True) / area
        return (((images - mean) ** 2 * shape).sum((1, 2, 3)) / area[:, 0, 0, 0] < 1e-6).float()


@pytest.mark.parametrize(("network", "expected"), [(SeesShapes(), 1), (SeesTextures(), 0)])
def test_a_network_that_sees_shapes_alone_has_a_bias_of_1_and_of_textures_alone_0(network, expected):
    data = Shapes(cue="both", classes=8, only=(0, 7), held_out=200, images=2)
    data.setup()
    images, labels, *_ = data.test.scenes(range(200))
    assert (predict(network, images).argmax(1) == labels).float().mean() == 1
    images, labels, *_ = data.conflict.scenes(range(200))
    found = shape_answers(predict(network, images), labels, data.conflict.cue_labels(range(200)))
    assert found.hit_rate == 1
    assert found.bias == expected


def test_predictions_are_counted_with_hit_rate_and_interval():
    logits = torch.eye(4)[[0, 1, 2, 3, 0, 0, 0, 0]]
    shapes = torch.tensor([0, 1, 1, 0, 0, 0, 1, 2])
    textures = torch.tensor([1, 2, 2, 1, 1, 1, 0, 3])
    found = shape_answers(logits, shapes, textures)
    assert found.bias == pytest.approx(4 / 6)  # two are answered by neither
    assert found.hit_rate == 6 / 8
    low, high = found.interval()
    assert 0 <= low < found.bias < high <= 1
    many = ShapeBias(found.by_shape.repeat(100), found.by_texture.repeat(100))
    closer = many.interval()
    # the standard error of a share of 600
    assert closer[1] - closer[0] == pytest.approx(2 * 1.96 * (4 / 6 * 2 / 6 / 600) ** 0.5, rel=0.15)
    none = ShapeBias(torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool))
    assert none.hit_rate == 0
    assert all(one != one for one in (none.bias, *none.interval()))
    with pytest.raises(ValueError, match="1 image whose shape and texture are of one class"):
        shape_answers(logits[:1], shapes[:1], shapes[:1])


def test_categories_are_disjoint_and_take_the_mean_of_their_members():
    members = [place for own in SIXTEEN.values() for place in own]
    assert len(SIXTEEN) == 16
    assert len(members) == len(set(members)) == 207
    logits = torch.full((2, 1000), -30.0)
    logits[0, 404] = logits[1, 281] = logits[1, 152] = 0.0
    found = category_probabilities(logits)
    names = list(SIXTEEN)
    assert found[0].argmax() == names.index("airplane")
    assert found[0].max() == pytest.approx(1, abs=1e-4)
    # as likely a cat as a dog, but there are 6 cats and 100 or so dogs
    assert found[1].argmax() == names.index("cat")
    assert found[1, names.index("cat")] == pytest.approx(0.5 / 6, rel=1e-3)
    with pytest.raises(ValueError, match="wanted ImageNet's 1000"):
        category_probabilities(torch.zeros(1, 10))
