"""Filters as pictures, whole or channel by channel."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision import models

from fulgurite.probes.colours import diverging, largest, scale_bar, signed
from fulgurite.probes.drawing import drawing_of
from fulgurite.probes.filters import (
    convolutions,
    filters,
    filters_side_by_side,
    render_filters,
    stimuli,
    strength,
    typical_end,
    weights,
)
from fulgurite.probes.style import DARK


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
    top = float(values.abs().max())
    expected = diverging(values[1, 0], top=top) if channels == 1 else signed(values[1], top=top)
    assert torch.equal(pixels[:, 1:4, 5:8], expected)


@pytest.mark.parametrize("channels", [1, 4])
def test_lines_part_filters_whose_zero_looks_like_the_paper(channels):
    network = convolution(channels, 4)
    nn.init.zeros_(network[0].weight)
    pixels = filters(network, "0", side=24)
    lines = (pixels == torch.tensor(DARK.separator)[:, None, None]).all(0)
    apart = 24 if channels == 1 else 12
    rows, columns = (4, 4) if channels == 4 else (2, 2)
    assert lines.all(1).sum() == 2 * (rows + 1)
    assert lines.all(0).sum() == 2 * (columns + 1)
    assert not lines[2 : 2 + apart, 2 : 2 + apart].any()


def test_the_extremes_of_a_filter_are_black_grey_and_white_in_each_colour():
    network = convolution(3, 1)
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([0.0, -2, 2, 1, 0, 0, 0, 0, 0]).view(1, 1, 3, 3))
    shown = filters(network, "0", side=3)[:, 1:4, 1:4]
    assert shown[0].tolist() == [[128, 0, 255], [191, 128, 128], [128] * 3]
    assert torch.equal(shown[1], shown[2])


def test_a_filter_on_one_channel_is_orange_where_positive_and_blue_where_negative():
    network = convolution(1, 1)
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([0.0, -2, 2, 1, 0, 0, 0, 0, 0]).view(1, 1, 3, 3))
    red, _, blue = filters(network, "0", side=3)[:, 1, 1:4].int()
    assert (red - blue).sign().tolist()[1:] == [-1, 1]
    assert abs(int(red[0] - blue[0])) < 10


def test_one_scale_shows_growth_and_states_the_share_beyond():
    network = convolution(1, 4)
    top = typical_end(network, "0")
    assert float(weights(network, "0").abs().max()) < 0.6 * top  # fresh weights are uniform
    before = filters(network, "0", top=top).float().mean()
    bare = render_filters(network, "0", top=top)
    with torch.no_grad():
        network[0].weight.mul_(3)
    assert filters(network, "0", top=top).float().mean() > 1.5 * before
    assert render_filters(network, "0", top=top).shape[1] >= bare.shape[1]
    words = [
        mark.words
        for mark in drawing_of(render_filters(network, "0", top=top)).marks
        if hasattr(mark, "words")
    ]
    assert "of the weights lie beyond the scale" in " ".join(words)


def test_a_share_that_rounds_to_nothing_is_not_called_so():
    network = convolution(16, 64)
    with torch.no_grad():
        network[0].weight.fill_(0.5)[0, 0, 0, 0] = 2
    words = " ".join(
        mark.words
        for mark in drawing_of(render_filters(network, "0", top=1.0)).marks
        if hasattr(mark, "words")
    )
    assert "less than 0.1% of the weights" in words


def test_deeper_filters_are_shown_channel_by_channel():
    pixels = filters(convolution(5, 2), "0", side=6)
    assert pixels.shape == (3, 2 * 4 + 1, 5 * 4 + 1)


def test_no_more_filters_are_shown_than_asked_for():
    assert filters(convolution(3, 100), "0", max_filters=4, side=3).shape == (3, 9, 9)
    assert filters(convolution(100, 100, 1), "0", max_filters=9, side=2).shape == (3, 19, 19)


def test_the_given_number_of_filters_is_shown_and_stated_in_the_caption():
    network = convolution(16, 64)
    assert filters(network, "0", max_filters=9, side=6).shape == (3, 9 * 4 + 1, 9 * 4 + 1)
    words = [
        mark.words
        for mark in drawing_of(render_filters(network, "0", max_filters=9)).marks
        if hasattr(mark, "words")
    ]
    assert "64 filters of 16 x 3 x 3, the first 9" in " ".join(words)
    assert filters(network, "0", side=6).shape == (3, 16 * 4 + 1, 16 * 4 + 1)


@pytest.mark.parametrize(("entering", "leaving"), [(1, 1), (4, 1), (4, 8)])
def test_the_paper_of_a_few_filters_is_as_wide_as_they_or_their_scale(entering, leaving):
    network = convolution(entering, leaving)
    paper = render_filters(network, "0", side=64)
    own = filters(network, "0", side=64)
    scale = scale_bar("signed", largest(network[0].weight.detach()), "weight")
    assert paper.shape[2] <= max(own.shape[2], scale.shape[2]) + 8


def test_depthwise_filters_are_shown_whole():
    assert filters(convolution(4, 4, groups=4), "0", side=3).shape == (3, 9, 9)


def test_one_weight_that_is_not_a_number_hides_no_other():
    network = convolution(1, 1)
    with torch.no_grad():
        network[0].weight[0, 0, 0] = torch.tensor([float("nan"), float("inf"), 5])
    pixels = filters(network, "0", side=3)[:, 1:4, 1:4]
    assert pixels[:, 0].T.tolist() == [[255, 0, 255], [255, 0, 255], list(DARK.signed[-1])]
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


def test_a_filter_responds_most_to_its_stimulus():
    network = convolution(3, 5)
    with torch.no_grad():
        network[0].weight[2] = 0
    found = stimuli(network, "0")
    assert_close(found.flatten(1).norm(dim=1), torch.tensor([1.0, 1, 0, 1, 1]))
    others = torch.nn.functional.normalize(torch.randn(200, 27), dim=1)
    response = (weights(network, "0") * found).flatten(1).sum(1)
    assert (response[:, None] >= (weights(network, "0").flatten(1) @ others.T) - 1e-6).all()
    assert_close(response, strength(network, "0"))


def test_filters_of_equal_direction_look_the_same_at_unit_length():
    network = convolution(3, 2)
    with torch.no_grad():
        network[0].weight[1] = 4 * network[0].weight[0]
    plain, unit = (filters(network, "0", side=3, unit_length=one) for one in (False, True))
    assert not torch.equal(plain[:, 1:4, 1:4], plain[:, 1:4, 5:8])
    assert torch.equal(unit[:, 1:4, 1:4], unit[:, 1:4, 5:8])


def test_networks_are_side_by_side_each_on_its_own_scale():
    networks = {"one": (convolution(3, 4, 11), "0"), "two": (convolution(1, 2), "0")}
    sheet = filters_side_by_side(networks, side=22)
    alone = filters(*networks["one"], side=22)
    top = 8 + 23  # below its name
    assert torch.equal(sheet[:, top : top + alone.shape[1], 8 : 8 + alone.shape[2]], alone)
    assert sheet.shape[2] > 2 * alone.shape[2]
    with pytest.raises(ValueError, match="no networks"):
        filters_side_by_side({})
    with pytest.raises(ValueError, match="'2' is a Linear, wanted a Conv2d: 0"):
        filters_side_by_side({"one": (convolution(3, 4), "2")})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("alexnet", (64, 3, 11, 11)),
        ("resnet18", (64, 3, 7, 7)),
        ("resnet101", (64, 3, 7, 7)),
        ("densenet121", (64, 3, 7, 7)),
    ],
)
def test_the_first_layers_of_known_networks(name, shape):
    with torch.device("meta"):
        network = models.get_model(name, weights=None)
    assert weights(network, convolutions(network)[0]).shape == shape
