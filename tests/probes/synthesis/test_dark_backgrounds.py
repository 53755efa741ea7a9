"""Class images and features of digits have plain dark backgrounds."""

import pytest
import torch
import torch.nn.functional as F
from digits_network import trained_once
from torch import Tensor

from fulgurite.probes.objectives import channel
from fulgurite.probes.synthesis.class_images import class_images
from fulgurite.probes.synthesis.features import feature_images

DARK, FAINT = 0.1, 0.03


def dots(images: Tensor) -> int:
    """Single pixels that are brighter than all around them, where it is dark."""
    around = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), 5, 1)
    near = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)
    highest = F.max_pool2d(images, 3, 1, 1)
    return int(((images == highest) & (around < DARK) & (images - near > FAINT)).sum())


@pytest.mark.slow
def test_dark_places_of_class_images_are_plain():
    # some 45; some 80 without total variation of beta = 1, which pulls at small dots as at large ones
    images = class_images(
        trained_once(), torch.arange(30) % 10, (1, 32, 32), background=[0.05], seeds=list(range(30))
    )
    assert float((images < DARK).float().mean()) > 0.4
    assert dots(images) < 60


@pytest.mark.slow
def test_dark_places_of_features_are_plain():
    # some 80; some 440 with a decay of the Fourier canvas of 1 and no total variation of beta = 1
    images = feature_images(
        trained_once(), channel("14", torch.arange(32)), (1, 32, 32), seeds=range(32), background=[0.05]
    )
    assert float((images < DARK).float().mean()) > 0.4
    assert dots(images) < 150
