"""Images that fool by gradient ascent: confident, few steps, small changes of photographs."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.predict import predict
from fulgurite.probes.synthesis.fooling import fooled_photographs, fooling_images

CLASSES = torch.arange(5)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 36, 5), nn.ReLU(), nn.Linear(5, 5)
    )


@pytest.fixture
def net() -> nn.Sequential:
    own = network()
    with torch.no_grad():
        own[3].weight.mul_(20)
        own[5].weight.copy_(4 * torch.eye(5))
    return own


def test_every_class_is_reached_with_its_number_of_steps(net):
    found = fooling_images(net, CLASSES, (1, 8, 8), layer="3")
    assert found.rate == 1
    chances = net[:4](found.images).softmax(1)[CLASSES, CLASSES]
    assert_close(found.probabilities, chances.detach())
    assert (found.probabilities >= 0.99).all()
    assert 0 < found.median_steps < 100
    # one step fewer, and the slowest is not there yet
    slowest = int(found.steps.max())
    assert fooling_images(net, CLASSES, (1, 8, 8), layer="3", steps=slowest).rate == 1
    assert fooling_images(net, CLASSES, (1, 8, 8), layer="3", steps=slowest - 1).rate < 1


def test_it_stops_when_all_are_there(net):
    passes = 0

    def count(*_):
        nonlocal passes
        passes += 1

    net[0].register_forward_hook(count)
    found = fooling_images(net, CLASSES, (1, 8, 8), layer="3", steps=1000)
    assert found.rate == 1
    assert passes < found.steps.max() + 15


def test_the_rate_is_0_if_no_class_is_reached():
    dull = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    found = fooling_images(dull, CLASSES, (1, 8, 8), steps=2)
    assert found.rate == 0
    assert found.steps.isnan().all()
    assert found.median_steps != found.median_steps


def test_photographs_are_changed_little_and_no_more_than_it_takes(net):
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wrong = (predict(net, images).argmax(1) + 1) % 5
    found = fooled_photographs(net, images, wrong, layer="3", lr=0.005, steps=200)
    assert found.rate == 1
    # far less than from one photograph to another
    change, distance = ((own - images).square().mean().sqrt() for own in (found.images, images.roll(1, 0)))
    assert change < 0.7 * distance
    already = fooled_photographs(net, found.images, wrong, layer="3", confidence=0.98, lr=0.005)
    assert torch.equal(already.images, found.images)
    assert (already.steps == 0).all()


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0])
def test_a_confidence_is_a_probability(net, confidence):
    with pytest.raises(ValueError, match="wanted a probability between 0 and 1"):
        fooling_images(net, CLASSES, (1, 8, 8), confidence=confidence)
