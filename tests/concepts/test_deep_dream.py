"""A probe from public concepts alone: DeepDream with octaves (Mordvintsev et al. 2015)."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.feature_objectives import energy
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels, resized
from fulgurite.probes.synthesis.gradients import tiled, whole
from fulgurite.probes.synthesis.optimizers import sgd, unit_mean
from fulgurite.probes.synthesis.transforms import jitter


def deep_dream(
    network, images, layer: str, *, octaves=4, scale=1.4, steps=10, lr=0.006, roll=8, gradient=whole
):
    """What a layer sees in photographs, made plainer, from coarse structures to fine ones."""
    sizes = [[round(side / scale**k) for side in images.shape[2:]] for k in reversed(range(octaves))]
    detail = torch.zeros_like(resized(images, sizes[0]))
    for size in sizes:
        octave = resized(images, size)
        dreamed = ascend(
            network,
            energy(layer),
            Pixels((octave + resized(detail, size)).clamp(0, 1)),
            steps=steps,
            by=sgd(lr, normalise=unit_mean),
            transform=jitter(roll),
            gradient=gradient,
        )
        detail = dreamed - octave
    return dreamed


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))


def test_a_plain_image_under_a_layer_that_copies_it_grows_brighter_by_every_step():
    images = torch.full((2, 3, 28, 42), 0.2)
    dreamed = deep_dream(nn.Sequential(nn.Identity()), images, "0", lr=0.01)
    assert_close(dreamed, torch.full_like(images, 0.2 + 4 * 10 * 0.01), rtol=0, atol=1e-4)


def test_one_step_of_one_octave_is_the_image_over_its_mean():
    images = 0.6 * torch.rand(2, 3, 28, 42)
    dreamed = deep_dream(nn.Sequential(nn.Identity()), images, "0", octaves=1, steps=1, lr=0.01)
    assert_close(dreamed, images + 0.01 * images / images.mean((1, 2, 3), keepdim=True))


@pytest.mark.parametrize("gradient", [whole, tiled(32)], ids=["whole", "tiled"])
def test_the_energy_of_the_layer_grows_more_with_octaves_and_images_stay_images(gradient):
    net, images = network(), 0.3 + 0.4 * resized(torch.rand(2, 3, 12, 18), [48, 72]).clamp(0, 1)

    def energy_of(own):
        return outputs(net, own, ["3"])["3"].square().flatten(1).sum(1)

    dreamed = deep_dream(net, images, "3", gradient=gradient)
    assert (energy_of(dreamed) > 1.5 * energy_of(images)).all()
    assert (energy_of(dreamed) > energy_of(deep_dream(net, images, "3", octaves=1, gradient=gradient))).all()
    assert dreamed.shape == images.shape
    assert dreamed.min() >= 0
    assert dreamed.max() <= 1
    assert_close(deep_dream(net, images[1:], "3", gradient=gradient), dreamed[1:], rtol=0, atol=1e-3)
