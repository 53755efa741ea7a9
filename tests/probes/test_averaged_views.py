"""Test-time augmentation: which views there are, and the mean of their probabilities."""

import pytest
import torch
from torch import nn

from fulgurite.probes.averaged_views import averaged_probabilities, most_views, views


def test_views_are_the_image_its_mirror_image_and_enlarged_crops():
    images = torch.rand(2, 3, 16, 16)
    shown = list(views(images, 12))
    assert len(shown) == 12 == most_views(mirror=True)
    assert torch.equal(shown[0], images)
    assert all(torch.equal(shown[k + 1], shown[k].flip(-1)) for k in range(0, 12, 2))
    assert all(view.shape == images.shape for view in shown)
    gradient = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)  # dark on the left
    means = [float(view.mean()) for view in views(gradient, 6, mirror=False)]
    assert means[1] < means[0] < means[2]  # upper left, lower right
    assert means[5] == pytest.approx(means[0], abs=1e-6)
    assert most_views(mirror=False) == 6


def test_the_probabilities_of_the_views_are_averaged():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    images = torch.rand(5, 3, 4, 4)
    with torch.no_grad():
        expected = (network(images).softmax(1) + network(images.flip(-1)).softmax(1)) / 2
        assert torch.allclose(averaged_probabilities(network, images, count=2), expected, atol=1e-6)
        assert torch.allclose(averaged_probabilities(network, images, count=1), network(images).softmax(1))


@pytest.mark.parametrize(
    ("count", "mirror", "complaint"), [(0, True, "0 views; wanted 1 to 12"), (7, False, "1 to 6")]
)
def test_more_views_than_there_are_is_reported(count, mirror, complaint):
    with pytest.raises(ValueError, match=complaint):
        next(views(torch.rand(1, 1, 8, 8), count, mirror=mirror))
