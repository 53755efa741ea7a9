"""Codes are the inputs of the classifier, of maps and tokens too."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.representation.codes import codes
from fulgurite.probes.stages import classifier_layer
from fulgurite.probes.trace import trace

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """Lists its classifier first, and runs it last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.hidden, self.conv = nn.Linear(5, 2), nn.Linear(4, 5), nn.Conv2d(3, 4, 3)

    def forward(self, images):
        pooled = F.relu(self.conv(images)).mean((2, 3))
        return self.head(F.relu(self.hidden(pooled), inplace=True))


class Looping(nn.Module):
    """Ends with the convolution that it began with."""

    def __init__(self):
        super().__init__()
        self.outer, self.inner = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return self.outer(self.inner(self.outer(images))).mean((2, 3))


@pytest.mark.parametrize(
    ("build", "classifier"),
    [
        (lambda: torchvision.models.resnet18(num_classes=2), "fc"),
        (lambda: torchvision.models.squeezenet1_0(num_classes=2), "classifier.1"),
        (lambda: torchvision.models.vgg11(num_classes=2), "classifier.6"),
        (Functional, "head"),
        (Looping, "outer"),
    ],
)
def test_the_classifier_is_the_last_to_run(build, classifier):
    with torch.device("meta"):
        network = build()
    network = network.to_empty(device="cpu")
    assert classifier_layer(trace(network, IMAGES)) == classifier


def test_codes_are_what_the_classifier_takes_in():
    network = Functional()
    expected = F.relu(network.hidden(F.relu(network.conv(IMAGES)).mean((2, 3))))
    assert_close(codes(network, IMAGES), expected)
    assert torch.equal(codes(network, IMAGES, "head"), codes(network, IMAGES))
    assert not codes(network, IMAGES).requires_grad


def test_codes_of_resnet18_are_its_pooled_maps():
    network = torchvision.models.resnet18(num_classes=2).eval()
    expected = nn.Sequential(*list(network.children())[:-1])(IMAGES).flatten(1)
    assert_close(codes(network.train(), IMAGES), expected)
    assert network.training


def test_the_codes_before_a_convolution_are_averaged_over_their_positions():
    network = torchvision.models.squeezenet1_0(num_classes=2).eval()
    assert_close(codes(network, IMAGES), network.features(IMAGES).mean((2, 3)))


def test_no_image_has_no_code():
    assert codes(Functional(), IMAGES[:0]).shape == (0, 5)


def test_a_network_without_weights_has_no_classifier():
    with pytest.raises(ValueError, match="Flatten has no linear layer and no convolution"):
        codes(nn.Flatten(), IMAGES)


def test_a_classifier_that_does_not_run_is_reported():
    network = Functional()
    network.spare = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="nothing was read from layer 'spare'"):
        codes(network, IMAGES, "spare")
