"""Predictions batch by batch, and outputs that are not logits."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.predict import predict

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_logits_are_those_of_the_network_in_eval_mode():
    network = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 5)).train()
    logits = predict(network, IMAGES)
    assert torch.equal(logits, network.eval()(IMAGES))
    assert not logits.requires_grad


def test_a_map_of_logits_is_averaged():
    network = nn.Conv2d(3, 5, 1)
    assert_close(predict(network, IMAGES), network(IMAGES).mean((2, 3)))


@pytest.mark.parametrize("count", [0, 1])
def test_any_number_of_images_has_logits(count):
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    assert predict(network, IMAGES[:count]).shape == (count, 1)


@pytest.mark.parametrize(
    ("wrap", "says"),
    [
        (lambda logits: {"logits": logits}, "outputs a dict, wanted one tensor"),
        (lambda logits: (logits, None), "outputs a tuple, wanted one tensor"),
        (lambda logits: logits[:, 0], r"wanted a row of values for each image, got a tensor of shape \(2,\)"),
    ],
    ids=["dict", "tuple", "squeezed"],
)
def test_what_are_no_logits_is_reported(wrap, says):
    class Wrapped(nn.Module):
        def forward(self, images):
            return wrap(images.flatten(1))

    with pytest.raises(ValueError, match=says):
        predict(Wrapped(), IMAGES)
