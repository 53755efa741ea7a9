"""Outputs of layers and gradients with respect to them, against closed forms."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.activations.layer_histograms import layer_values

IMAGES, LABELS = torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 2, 1, 0])


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, 3))


@pytest.mark.parametrize("labels", [LABELS, None])
def test_gradients_are_those_of_the_cross_entropy(labels):
    network = net()
    found = layer_values(network, IMAGES, labels, ["0", "1", "3"])
    with torch.no_grad():
        conv = network[0](IMAGES)
        logits = network[3](conv.relu().flatten(1))
        targets = logits.argmax(1) if labels is None else labels
        lead = logits.softmax(1) - nn.functional.one_hot(targets, 3)
        after = lead @ network[3].weight
    assert_close(found["0"].outputs, conv.flatten())  # before the ReLU in place
    assert_close(found["1"].outputs, conv.relu().flatten())
    assert_close(found["3"].gradients, lead.flatten())
    assert_close(found["1"].gradients, after.flatten())
    assert_close(found["0"].gradients, (after.view_as(conv) * (conv > 0)).flatten())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_no_more_numbers_than_asked_for():
    found = layer_values(net(), IMAGES, LABELS, ["0"], most=50)["0"]
    assert 25 < len(found.outputs) == len(found.gradients) <= 50
    with pytest.raises(ValueError, match="most=0; wanted at least 1"):
        layer_values(net(), IMAGES, LABELS, ["0"], most=0)


def test_images_and_labels_of_inference_mode_are_taken():
    network = net()
    expected = layer_values(network, IMAGES, LABELS, ["0"])["0"]
    with torch.inference_mode():
        found = layer_values(network, IMAGES.clone(), LABELS.clone(), ["0"])["0"]
    assert torch.equal(found.gradients, expected.gradients)
