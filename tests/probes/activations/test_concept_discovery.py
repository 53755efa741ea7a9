"""Concepts: planted ones are found, at their positions, and add up to the class score."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.activations.concept_discovery import concepts, crop_boxes, strongest_crops
from fulgurite.probes.activations.render_concepts import render_concepts
from fulgurite.probes.predict import predict

PLACES = [(0, 0, 8, 9), (2, 6, 9, 1), (5, 3, 0, 8), (9, 9, 3, 2)]  # of the red and of the green square


def planted() -> torch.Tensor:
    """Black images with a square of red and one of green, of several strengths."""
    images = torch.zeros(4, 3, 12, 12)
    for image, (top, left, down, right) in zip(images, PLACES, strict=True):
        image[0, top : top + 3, left : left + 3] = 1 - top / 20
        image[1, down : down + 3, right : right + 3] = 1 - down / 20
    return images


def network(sign: float = 1.0) -> nn.Sequential:
    """Puts out the colours, times a sign; the score of class 1 is 20 red - 10 green + 0.3, averaged."""
    first, head = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)
    with torch.no_grad():
        first.weight.copy_(sign * torch.eye(3)[:, :, None, None])
        first.bias.zero_()
        head.weight.copy_(sign * torch.tensor([[0.0, 0, 0], [20, -10, 5]]))
        head.bias.fill_(0.3)
    rest = nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
    return nn.Sequential(first, nn.ReLU() if sign > 0 else nn.Identity(), *rest)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["after a ReLU", "below 0"])
def test_planted_concepts_are_found_and_add_up_to_the_score(sign: float):
    net, images = network(sign), planted()
    state = torch.get_rng_state()
    found = concepts(net, images, 1, "1", count=2)
    assert torch.equal(state, torch.get_rng_state())
    assert net.training
    assert_close(found.directions, sign * torch.eye(3)[:2], atol=1e-3, rtol=0)  # red adds most
    assert_close(found.maps, images[:, :2], atol=2e-3, rtol=0)
    assert_close(found.scores, predict(net, images)[:, 1])
    assert_close(found.contributions.sum(1) + 0.3, found.scores, atol=1e-2, rtol=0)
    expected = torch.stack([20 * images[:, 0].mean((1, 2)), -10 * images[:, 1].mean((1, 2))], 1)
    assert_close(found.contributions, expected, atol=1e-2, rtol=0)
    assert found.importance[0] > 0 > found.importance[1]
    assert found.error < 0.01


def test_the_strongest_crops_hold_the_concept_and_are_of_several_images():
    found = concepts(network(), planted(), 1, "1", count=2, crop=0.5)
    for concept, channel in ((0, 0), (1, 1)):
        chosen = strongest_crops(found, concept, 4)
        assert sorted(found.boxes[chosen, 0].tolist()) == [0, 1, 2, 3]
        amounts = found.in_crops[chosen, concept]
        assert torch.equal(amounts, amounts.sort(descending=True).values)
        for image, top, left, bottom, right in found.boxes[chosen].tolist():
            whole = planted()[image, channel]
            assert whole[top:bottom, left:right].sum() > 0.6 * whole.sum()
    assert len(set(strongest_crops(found, 0, 10))) == 10


def test_crops_reach_from_border_to_border_and_overlap_by_a_fifth():
    boxes = crop_boxes(2, 100, 80, 0.5)
    assert len(boxes) == 2 * 9
    assert boxes[:9, 0].eq(0).all()
    assert boxes[9:, 0].eq(1).all()
    assert boxes[:, 1].unique().tolist() == [0, 25, 50]
    assert boxes[:, 2].unique().tolist() == [0, 20, 40]
    assert (boxes[:, 3] - boxes[:, 1]).unique().tolist() == [50]
    for crop in (0.1, 0.33, 0.7):
        tops = crop_boxes(1, 100, 100, crop)[:, 1].unique()
        assert tops.diff().max() <= 0.8 * 100 * crop + 1
    assert crop_boxes(1, 100, 80, 1.0).tolist() == [[0, 0, 0, 100, 80]]


def test_small_crops_of_small_images_are_no_more_than_their_pixels():
    boxes = crop_boxes(1, 8, 6, 0.02)
    assert len(boxes) == 48  # 63 x 63 without a look at the pixels
    assert len(boxes.unique(dim=0)) == 48


def test_the_last_layer_with_maps_is_taken_without_a_name():
    assert concepts(network(), planted(), 1, count=2).layer in ("0", "1")


def test_a_sheet_has_a_row_for_each_concept_in_colour():
    images = planted()
    found = concepts(network(), images, 1, "1", count=2)
    sheet = render_concepts(images, found, "red", crops=3, most=2, side=48)
    assert sheet.shape[1] > 2 * 48
    assert sheet.shape[2] > 5 * 48
    red, green, blue = sheet.int()
    assert ((red > 200) & (green < 60) & (blue < 60)).sum() > 100
    assert ((green > 200) & (red < 60) & (blue < 60)).sum() > 100


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"layer": "4"}, "layer '4' outputs .*; wanted maps"),
        ({"layer": "conv"}, "no layer 'conv'"),
        ({"count": 4}, "4 concepts of 576 positions and 3 channels of layer '1'; wanted no more than either"),
        ({"count": 0}, "0 concepts of 4 images"),
        ({"crop": 0.0}, "in crops of 0.0 of their side"),
        ({"crop": 0.001}, "crops of 0.02 to 1"),
        ({"target": 7}, "7"),
    ],
)
def test_what_cannot_be_factorised_is_reported_in_one_sentence(wanted: dict, complaint: str):
    with pytest.raises(ValueError, match=complaint) as error:
        concepts(network(), planted(), **{"target": 1, "layer": "1", "count": 2, **wanted})
    assert "\n" not in str(error.value)


def test_images_without_features_are_reported():
    with pytest.raises(ValueError, match="features of layer '1' that are 0 everywhere"):
        concepts(network(), torch.zeros(2, 3, 12, 12), 1, "1", count=2)
    with pytest.raises(ValueError, match="2 concepts of 0 images"):
        concepts(network(), planted()[:0], 1, "1", count=2)
