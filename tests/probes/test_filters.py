import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.filters import convolutions, filters, strength, weights


def convolution(entering, leaving, side=3, **options) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(entering, leaving, side, **options), nn.Flatten(), nn.Linear(4, 2))


def test_convolutions_are_listed_by_path():
    network = nn.Sequential(convolution(3, 4), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1))
    assert convolutions(network) == ["0.0", "2"]
    assert convolutions(torch.compile(network, backend="eager")) == ["0.0", "2"]


@pytest.mark.parametrize("channels", [1, 3])
def test_filters_on_an_image_are_shown_whole(channels):
    network = convolution(channels, 4)
    pixels = filters(network, "0", side=3)
    assert pixels.shape == (3, 2 * 4 + 1, 2 * 4 + 1)
    values = network[0].weight.detach()
    expected = ((values / (2 * values.abs().max()) + 0.5) * 255).round().to(torch.uint8)
    assert torch.equal(pixels[:, 1:4, 5:8], expected[1].expand(3, 3, 3))


def test_the_extremes_of_a_filter_are_black_grey_and_white():
    network = convolution(1, 1)
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([0.0, -2, 2, 1, 0, 0, 0, 0, 0]).view(1, 1, 3, 3))
    assert filters(network, "0", side=3)[0, 1:4, 1:4].tolist() == [[128, 0, 255], [191, 128, 128], [128] * 3]


def test_deeper_filters_are_shown_channel_by_channel():
    pixels = filters(convolution(5, 2), "0", side=6)
    assert pixels.shape == (3, 2 * 4 + 1, 5 * 4 + 1)


def test_no_more_filters_are_shown_than_asked_for():
    assert filters(convolution(3, 100), "0", max_filters=4, side=3).shape == (3, 9, 9)
    assert filters(convolution(100, 100, 1), "0", max_filters=4, side=2).shape == (3, 9, 9)


def test_depthwise_filters_are_shown_whole():
    assert filters(convolution(4, 4, groups=4), "0", side=3).shape == (3, 9, 9)


def test_one_weight_that_is_not_a_number_hides_no_other():
    network = convolution(1, 1)
    with torch.no_grad():
        network[0].weight[0, 0, 0] = torch.tensor([float("nan"), float("inf"), 5])
    pixels = filters(network, "0", side=3)[:, 1:4, 1:4]
    assert pixels[:, 0].T.tolist() == [[255, 0, 255], [255, 0, 255], [255, 255, 255]]
    assert pixels[0, 1:].float().std() > 0


def test_filters_all_zero_are_all_grey():
    network = convolution(3, 1)
    nn.init.zeros_(network[0].weight)
    assert filters(network, "0", side=3)[:, 1:4, 1:4].eq(128).all()


def test_the_strength_of_a_filter_is_its_length():
    network = convolution(2, 3).bfloat16()
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].weight[1, 0, 0, :2] = torch.tensor([3.0, 4.0])
    assert_close(strength(network, "0"), torch.tensor([0.0, 5, 0]))


def test_weights_carry_no_graph():
    assert not weights(convolution(3, 4), "0").requires_grad


def test_what_is_no_convolution_has_no_filters():
    with pytest.raises(ValueError, match="'2' is a Linear, wanted a Conv2d: 0"):
        filters(convolution(3, 4), "2")
    with pytest.raises(ValueError, match="no layer 'conv'"):
        weights(convolution(3, 4), "conv")
