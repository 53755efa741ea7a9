"""Equivariance and invariance of layers: properties of convolution and pooling."""

import math

import digits_network
import pytest
import torch
from torch import Tensor, nn

from fulgurite.probes.predict import predict
from fulgurite.probes.representation.equivariance import NONE, POSITIONS, TRAINED, equivariance
from fulgurite.probes.representation.hog import HOG
from fulgurite.probes.representation.image_transforms import image_transform
from fulgurite.probes.representation.invariance import EQUIVARIANCE, INVARIANCE, invariance


def circular() -> nn.Sequential:
    """Convolutions around the edges, and the mean over positions: shifts around change nothing."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Of several brightnesses, so that images differ in more than noise."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(64, 1, 8, 8, generator=generator) * torch.rand(64, 1, 1, 1, generator=generator)


def labelled(network: nn.Sequential, images: Tensor) -> tuple[Tensor, Tensor]:
    """The images with the network's predictions, all of which are given."""
    with torch.no_grad():
        network[-1].bias -= predict(network, images).mean(0)
    return images, predict(network, images).argmax(1)


def test_a_circular_convolution_is_exactly_equivariant_and_the_mean_over_positions_invariant(images: Tensor):
    found = invariance(circular(), images, ["roll3x-2"], ["1", "3", "4", "6"])["roll3x-2"]
    for layer in ("1", "3"):
        assert found[layer][EQUIVARIANCE].score == pytest.approx(1, abs=1e-10)
        assert found[layer][INVARIANCE].score < 0.9
    for layer in ("4", "6"):
        assert found[layer][INVARIANCE].score == pytest.approx(1, abs=1e-9)
        assert found[layer][EQUIVARIANCE] == found[layer][INVARIANCE]


def test_the_score_is_that_of_all_pairs_and_adds_up_over_images(images: Tensor):
    """A slow twin, pair by pair."""
    layer = nn.Conv2d(1, 2, 3)
    network, few = nn.Sequential(layer, nn.Flatten(), nn.Linear(72, 2)), images[:6]
    found = invariance(network, few, ["vflip"], ["0"])["vflip"]["0"][INVARIANCE]
    with torch.no_grad():
        own, other = (layer(part).flatten(1).double() for part in (few, few.flip(2)))
    distances = (own[:, None] - other).square().sum(2)
    others = distances[~torch.eye(6, dtype=torch.bool)]
    assert found.score == pytest.approx(1 - float(distances.diagonal().mean() / others.mean()))
    halves = [invariance(network, part, ["vflip"], ["0"])["vflip"]["0"] for part in (few[:3], few[3:])]
    both = halves[0][EQUIVARIANCE] + halves[1][EQUIVARIANCE]
    assert (both.count, both.pairs) == (6, 12)


def test_equal_images_have_no_score_and_one_alone_is_refused():
    network = circular()
    alike = torch.full((3, 1, 8, 8), 0.5)
    assert math.isnan(invariance(network, alike, ["hflip"], ["6"])["hflip"]["6"][INVARIANCE].score)
    with pytest.raises(ValueError, match="1 image; wanted at least 2"):
        invariance(network, alike[:1], ["hflip"], ["6"])


def test_before_global_pooling_a_permutation_of_positions_changes_nothing(images: Tensor):
    network = circular()
    data = labelled(network, images)
    found = equivariance(network, data, data, ["vflip", "rot90"], layers=["0", "3"])
    for name in ("vflip", "rot90"):
        bars = found.bars(name)
        assert bars[POSITIONS][1] == bars[NONE][1] < 1
        assert bars["not transformed"] == [1.0, 1.0]
    # the filters of the first layer are others for mirrored images, which the 3 x 3 maps make up for
    error = found.maps["vflip"].error
    assert error["3 x 3"][0] < error["1 x 1"][0] < error[POSITIONS][0]


def test_what_is_equivariant_is_recovered_without_error(images: Tensor):
    network = circular()
    data = labelled(network, images)
    found = equivariance(network, data, data, ["roll4"], layers=["1", "4"], epochs=1, hog=True)
    assert found.layers == ("1", "4", "HOG")
    own = found.maps["roll4"]
    assert own.error[POSITIONS][:2] == pytest.approx([0, 0], abs=1e-9)
    assert found.bars("roll4")[POSITIONS][:2] == [1.0, 1.0]
    assert own.accuracy["3 x 3"][1] is None  # there is one position
    assert own.accuracy[TRAINED][0].accuracy > 1 / 3
    head, *rows = found.table()
    assert [row[:2] for row in rows] == [["roll4", "1"], ["roll4", "4"], ["roll4", "HOG"]]
    assert all(len(row) == len(head) for row in rows)
    assert "3 x 3" in found.text()


WORDS = ("hflip", "vflip", "rot90", "rot270", "rot-90", "shift2x-1", "roll3", "rot180")


@pytest.mark.parametrize("word", WORDS)
def test_maps_are_brought_back_exactly(word: str):
    images = torch.zeros(2, 3, 12, 12)
    images[:, :, 4:8, 3:9] = torch.rand(2, 3, 4, 6)
    transform = image_transform(word)
    assert not torch.equal(transform(images), images)
    assert torch.equal(transform.undone(transform(images), (12, 12)), images)


def test_a_shift_of_an_image_is_one_of_fewer_positions_of_its_maps():
    maps = torch.rand(1, 2, 4, 4)
    shift = image_transform("shift4")
    assert torch.equal(shift.undone(maps, (16, 16))[..., :3], maps[..., 1:])
    assert torch.equal(shift.undone(maps, (16, 16))[..., 3], torch.zeros(1, 2, 4))
    torch.testing.assert_close(shift.undone(maps, (32, 32))[..., 0], (maps[..., 0] + maps[..., 1]) / 2)


@pytest.mark.parametrize(
    ("word", "back"), [("rot90", "rot90.00001"), ("rot-30", "rot30"), ("scale0.5", "scale2")]
)
def test_smooth_images_are_turned_against_the_clock_and_scaled(word: str, back: str):
    x = torch.linspace(-1, 1, 33)
    image = torch.exp(-4 * ((x[:, None] - 0.2) ** 2 + (x + 0.1) ** 2))[None, None]
    one, other = image_transform(word), image_transform(back)
    if word == "rot90":  # the same by moving values and by interpolation
        torch.testing.assert_close(one(image), other(image), atol=1e-3, rtol=0)
        assert one(image).flatten().argmax() != image.flatten().argmax()
    else:
        for found in (one.undone(one(image), (33, 33)), other(one(image))):  # corners are lost
            torch.testing.assert_close(found[..., 8:25, 8:25], image[..., 8:25, 8:25], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "word", ["flip", "hflip2", "rot", "scale0", "shift1.5", "scale0.5x2", "", "roll9999"]
)
def test_an_unknown_transformation_is_one_sentence(word: str):
    with pytest.raises(ValueError, match=r"wanted|whole pixels"):
        image_transform(word)


def test_images_that_are_not_square_are_not_turned_by_a_right_angle():
    with pytest.raises(ValueError, match="rot90 of images of 4 x 6 pixels; wanted square ones"):
        image_transform("rot90")(torch.rand(1, 1, 4, 6))


def test_hog_encodes_the_direction_of_gradients():
    """A ramp to the right has gradients at 0 degrees, one downwards at 90: between two bins."""
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    across, along = HOG(8)(torch.cat([ramp, ramp.transpose(2, 3)])).unflatten(1, (4, 9))
    assert across.shape == (4, 9, 3, 3)
    torch.testing.assert_close(across[:, 0, 1, 1], torch.full((4,), 0.5), atol=1e-2, rtol=0)
    assert float(across[:, 1:].abs().max()) < 1e-6
    torch.testing.assert_close(along[:, 4, 1, 1], along[:, 5, 1, 1])
    assert float(along[:, [0, 1, 2, 3, 6, 7, 8]].abs().max()) < 1e-6
    assert float(HOG(8)(torch.full((1, 3, 32, 32), 0.4)).abs().max()) == 0


@pytest.mark.slow
def test_digits_upside_down_are_recovered_by_linear_maps():
    """`benchmarks/representation.py` has the figures of all layers."""
    train, test = digits_network.digits()
    network = digits_network.trained_once()
    found = equivariance(network, train, test, ["vflip"], layers=["3", "19"], kernels=[1]).bars("vflip")
    assert found[NONE][0] <= 0.6
    assert found["1 x 1"][0] >= 0.97
    assert found[POSITIONS][1] == found[NONE][1]
