"""Features: channels, units and directions of any layer rise, and no layer after them runs."""

import time

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from benchmarks.class_images import squeezenet
from fulgurite.probes.objectives import channel, direction, unit
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier
from fulgurite.probes.synthesis.features import feature_images, strongest, values_of
from fulgurite.probes.synthesis.transforms import TRANSFORMS, identity

SHAPE = (3, 12, 12)


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 4, 3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(256, 5),
    ).train()


NUMBERS = torch.tensor([3, 1])
OBJECTIVES = {
    "channels": channel("3", NUMBERS),
    "channels after a ReLU": channel("4", NUMBERS),
    "units": unit("0", NUMBERS, row=torch.tensor([2, 5])),
    "a direction": direction("3", torch.tensor([1.0, -1, 0, 2])),
    "directions": direction("3", torch.tensor([[1.0, -1, 0, 2], [0, 1, 0, 0]])),
    "logits": channel("", NUMBERS),
}


@pytest.mark.parametrize("transform", ["none", "affine"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_asked_for_rises(name, transform):
    network, objective = convolutional(), OBJECTIVES[name]
    images = feature_images(
        network, objective, SHAPE, seeds=[0, 1], steps=40, transform=TRANSFORMS[transform]()
    )
    before = values_of(network, objective, Fourier(SHAPE, [0, 1])())
    after = values_of(network, objective, images)
    assert (after > before + 0.01).all()
    assert images.min() >= 0
    assert images.max() <= 1


def test_the_feature_of_a_first_convolution_is_its_kernel():
    # the pixels that a unit sees become black or white by the sign of its weights
    network = nn.Sequential(nn.Conv2d(1, 2, 5))
    torch.manual_seed(0)
    weight = network[0].weight.detach()
    images = feature_images(
        network, unit("0", torch.tensor([0, 1])), (1, 9, 9), seeds=[0, 1], steps=200, transform=identity
    )
    seen = images[:, :, 2:7, 2:7] - 0.5
    for image, kernel in zip(seen, weight, strict=True):
        assert torch.cosine_similarity(image.flatten(), kernel.flatten(), dim=0) > 0.7
        large = kernel.abs() > 0.5 * kernel.abs().max()
        assert ((image > 0) == (kernel > 0))[large].float().mean() > 0.9


def test_a_tap_before_an_in_place_relu_gives_its_own_values():
    network = convolutional().eval()
    images = torch.rand(2, *SHAPE)
    expected = network[1](network[0](images)).mean((2, 3))[torch.arange(2), NUMBERS]
    assert_close(values_of(network, channel("1", NUMBERS), images), expected)
    low = feature_images(network, -1.0 * channel("1", NUMBERS), SHAPE, seeds=[0, 1], steps=40)
    assert (values_of(network, channel("1", NUMBERS), low) < -0.2).all()  # never, after the ReLU


def test_a_batch_is_its_images_one_by_one():
    network, numbers = convolutional(), torch.tensor([3, 1, 0])
    together = feature_images(network, channel("4", numbers), SHAPE, seeds=[4, 5, 6], steps=12, precise=True)
    for place, number in enumerate(numbers):
        alone = feature_images(
            network, channel("4", int(number)), SHAPE, seeds=[4 + place], steps=12, precise=True
        )
        assert_close(alone[0], together[place], rtol=0, atol=1e-5)


def test_dead_channels_come_to_life():
    network = convolutional()
    with torch.no_grad():
        network[3].bias[NUMBERS] -= torch.tensor([0.1, 0.15])
    blank = Fourier(SHAPE, [0, 1])()
    assert not values_of(network, channel("4", NUMBERS), blank).any()
    assert_close(ascend(network, channel("4", NUMBERS), Fourier(SHAPE, [0, 1]), steps=20), blank)
    images = feature_images(network, channel("4", NUMBERS), SHAPE, seeds=[0, 1], steps=40)
    assert (values_of(network, channel("4", NUMBERS), images) > 0).all()


def test_the_strongest_channels_are_those_of_the_largest_mean():
    network, images = convolutional().eval(), torch.rand(5, *SHAPE)
    means = network[:3](images).mean((0, 2, 3))
    assert strongest(network, images, "2", 4).tolist() == means.argsort(descending=True)[:4].tolist()
    assert len(strongest(network, images, "2", 99)) == 6


def test_a_warm_start_continues():
    network, asked = convolutional(), channel("3", NUMBERS)
    first = feature_images(network, asked, SHAPE, seeds=[0, 1], steps=30)
    again = feature_images(network, asked, SHAPE, seeds=[0, 1], steps=0, start=first)
    assert_close(again, first, rtol=0, atol=2e-3)


def test_nothing_is_left_behind():
    network = convolutional()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    feature_images(network, channel("4", NUMBERS), SHAPE, seeds=[0, 1], steps=3)
    values_of(network, channel("4", NUMBERS), torch.rand(2, *SHAPE, generator=torch.Generator()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_a_feature_of_a_first_stage_costs_less_than_one_of_the_last():
    network = torchvision.models.resnet18().eval()

    def seconds(layer: str) -> float:
        start = time.process_time()
        feature_images(network, channel(layer, torch.arange(8)), (3, 64, 64), seeds=range(8), steps=4)
        return time.process_time() - start

    seconds("layer1")
    assert min(seconds("fc") for _ in range(3)) > 1.4 * min(seconds("layer1") for _ in range(3))


@pytest.mark.slow
def test_channels_of_a_real_network_rise_above_all_that_photographs_reach(real_data):
    from real_images import photographs

    network, photos = squeezenet(real_data), photographs(real_data, range(0, 200, 10), 96)
    for layer in ("features.3", "features.7", "features.10"):
        numbers = strongest(network, photos, layer, 3)
        images = feature_images(network, channel(layer, numbers), (3, 96, 96), seeds=range(3), steps=64)
        for place, number in enumerate(numbers):
            most = values_of(network, channel(layer, int(number)), photos).max()
            assert values_of(network, channel(layer, int(number)), images[place : place + 1])[0] > 1.5 * most
