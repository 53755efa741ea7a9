"""Activation maps: exactly the outputs of the strongest channels, on one scale."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.activations.activation_maps import ActivationMaps, activation_maps, render_activations
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.render import diverging, heat

IMAGES = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.Dropout()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(5 * 64, 4))


class ChannelsLast(nn.Module):
    """A layer of channels last, as in Swin transformers, and tokens of a grid of patches."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.grid_size, self.num_prefix_tokens = (4, 4), 1
        self.patches, self.last = nn.Conv2d(3, 7, 3, 3), nn.Linear(7, 8)
        self.tokens, self.head = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, images):
        last = self.last(self.patches(images).movedim(1, -1)).flatten(1, 2)
        return self.head(self.tokens(torch.cat([9 + last[:, :1], last], 1)).mean(1))


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_maps_are_the_layers_output_of_the_strongest_channels_in_order(layer: str):
    network = convolutional()
    expected = outputs(network, IMAGES, [layer])[layer]
    found = activation_maps(network, IMAGES, [layer], most=4)[layer]
    assert found.channels.shape == (5, 4)
    for place, (channels, maps) in enumerate(zip(found.channels, found.maps, strict=True)):
        assert torch.equal(maps, expected[place, channels])
    means = expected.clamp(min=0).mean((2, 3))
    assert_close(found.means, means.sort(dim=1, descending=True).values[:, :4])
    assert network.training


def test_a_network_solved_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 3, -1]).view(3, 1, 1, 1))
    image = torch.tensor([[0.0, 1], [0.5, 0.5]])[None, None]
    found = activation_maps(network, image, ["0"], most=9)["0"]
    assert found.channels.tolist() == [[1, 0, 2]]
    assert found.means.tolist() == [[1.5, 0.5, 0.0]]
    assert torch.equal(found.maps[0], torch.stack([3 * image[0, 0], image[0, 0], -image[0, 0]]))


def test_equally_strong_channels_come_in_their_own_order():
    network = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU())
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.fill_(-1.0)
        network[0].bias[17] = 1.0
    found = activation_maps(network, IMAGES, ["1"], most=5)["1"]
    assert found.channels.tolist() == [[17, 0, 1, 2, 3]] * 5


def test_channels_that_come_last_and_tokens_of_a_grid_are_maps():
    network = ChannelsLast().eval()
    found = activation_maps(network, IMAGES, ["last", "tokens"], most=8)
    with torch.no_grad():
        last = network.last(network.patches(IMAGES).movedim(1, -1))
        tokens = network.tokens(last).movedim(-1, 1)
    for layer, expected in {"last": last.movedim(-1, 1), "tokens": tokens}.items():
        assert found[layer].maps.shape == expected.shape
        ordered = expected.gather(1, found[layer].channels[:, :, None, None].expand_as(expected))
        assert_close(found[layer].maps, ordered)


def test_a_row_of_values_is_maps_of_one_value():
    network = convolutional()
    found = activation_maps(network, IMAGES, ["", "0"], most=2)
    assert found[""].maps.shape == (5, 2, 1, 1)
    expected = outputs(network, IMAGES, [""])[""]
    assert torch.equal(found[""].maps[..., 0, 0], expected.gather(1, found[""].channels))


def test_many_images_go_through_in_parts():
    network, many = convolutional(), IMAGES.repeat(9, 1, 1, 1)
    found = activation_maps(network, many, ["2"])["2"]
    alone = activation_maps(network, IMAGES, ["2"])["2"]
    assert found.maps.shape == (45, 5, 8, 8)
    assert_close(found.maps[40:], alone.maps)


def test_all_tiles_of_a_picture_have_one_scale():
    maps = torch.tensor([[[[4.0, 0]], [[2.0, 1]]], [[[0.0, 1]], [[1.0, 1]]]])
    found = ActivationMaps(torch.tensor([[1, 0], [0, 1]]), maps, torch.ones(2, 2))
    pixels = render_activations("conv", torch.zeros(2, 3, 4, 4), found, side=16)
    colours = {tuple(colour) for colour in pixels.flatten(1).T.tolist()}
    for value in (0.0, 1.0, 2.0, 4.0):
        assert tuple(heat(torch.tensor([[value]]), top=4.0)[:, 0, 0].tolist()) in colours
    both = render_activations(
        "conv", torch.zeros(2, 3, 4, 4), ActivationMaps(found.channels, -maps, found.means), side=16
    )
    shades = {tuple(colour) for colour in both.flatten(1).T.tolist()}
    for value in (0.0, -1.0, -2.0):
        assert tuple(diverging(torch.tensor([[value]]), top=4.0)[:, 0, 0].tolist()) in shades


def test_what_cannot_be_shown_is_reported_in_a_sentence():
    network = convolutional()
    with pytest.raises(ValueError, match="no layer 'conv' in Sequential"):
        activation_maps(network, IMAGES, ["conv"])
    with pytest.raises(ValueError, match="layers='0'; wanted a list of their paths"):
        activation_maps(network, IMAGES, "0")
    with pytest.raises(ValueError, match="most=0 channels of 5 images; wanted at least 1"):
        activation_maps(network, IMAGES, ["0"], most=0)
    with pytest.raises(ValueError, match="most=8 channels of 0 images"):
        activation_maps(network, IMAGES[:0], ["0"])
    with torch.no_grad():
        network[0].bias[0] = torch.nan
    with pytest.raises(ValueError, match="activations of '0' that are not finite"):
        activation_maps(network, IMAGES, ["0"])
    nameless = ChannelsLast()
    nameless.grid_size = None
    with pytest.raises(ValueError, match="tokens that lie on no grid"):
        activation_maps(nameless, IMAGES, ["tokens"])
    found = activation_maps(nameless, IMAGES, ["last"])["last"]
    with pytest.raises(ValueError, match="2 names and maps of 5 for 5 images"):
        render_activations("last", IMAGES, found, ["a", "b"])
