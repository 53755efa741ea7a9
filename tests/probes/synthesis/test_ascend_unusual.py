"""Ascents without finite gradients, in half precision, compiled, on empty networks; and what is refused."""

import pytest
import torch
from ascent_networks import SHAPE, convolutional, grey, linear
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.feature_objectives import energy
from fulgurite.probes.objectives import (
    Objective,
    channel,
    class_score,
)
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Fourier, Pixels
from fulgurite.probes.synthesis.class_images import class_images
from fulgurite.probes.synthesis.optimizers import adam


class Fragile(nn.Module):
    """Gives no number for an image that is brighter than its limit."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.body = limit, linear()

    def forward(self, images):
        bright = images.flatten(1).mean(1, keepdim=True) > self.limit
        return self.body(images) * torch.where(bright, float("nan"), 1.0)


def test_an_image_without_finite_gradients_harms_no_other():
    start = torch.stack([torch.full(SHAPE, value) for value in (0.4, 0.9, 0.5)])
    with pytest.warns(UserWarning, match="^1 of 3 images met gradients that are not finite"):
        images = ascend(Fragile(0.8), class_score(1), Pixels(start), steps=5, by=adam(0.001))
    expected = ascend(linear(), class_score(1), Pixels(start), steps=5, by=adam(0.001))
    assert torch.equal(images[1], start[1])
    assert torch.equal(images[[0, 2]], expected[[0, 2]])


def test_an_image_that_loses_its_gradient_on_the_way_stays_where_it_was():
    start = torch.full((1, 1, 2, 2), 0.5)

    def value(seen):
        images = seen[""]
        return images.flatten(1).sum(1) * torch.where(images.mean() > 0.55, float("nan"), 1.0)

    with pytest.warns(UserWarning, match="1 of 1"):
        images = ascend(
            nn.Identity(), Objective(frozenset({""}), value), Pixels(start), steps=10, by=adam(0.02)
        )
    assert_close(images, start + 0.06, rtol=0, atol=1e-4)


def test_the_layout_of_the_start_in_memory_does_not_matter():
    start = torch.rand(2, *SHAPE)
    plain, last = (
        ascend(convolutional(), energy("0"), Pixels(start.to(memory_format=layout)), steps=4)
        for layout in (torch.contiguous_format, torch.channels_last)
    )
    assert_close(plain, last)


def test_a_gradient_that_is_one_number_spread_out_moves_every_pixel_alike():
    total = Objective(frozenset({""}), lambda seen: seen[""].flatten(1).sum(1))
    images = ascend(nn.Identity(), total, Pixels(torch.full((1, 1, 4, 4), 0.2)), steps=5, by=adam(0.02))
    assert_close(images, torch.full((1, 1, 4, 4), 0.3), rtol=0, atol=1e-4)


def test_a_network_of_weights_that_are_not_numbers_leaves_the_canvas_alone():
    network = convolutional()
    with torch.no_grad():
        network[0].weight.fill_(float("nan"))
    with pytest.warns(UserWarning, match="2 of 2"):
        images = class_images(network, torch.tensor([0, 1]), SHAPE, background=[0.2] * 3, steps=2)
    assert torch.equal(images, Fourier(SHAPE, [0, 1], mean=[0.2] * 3, decay=1.5)().detach())


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (class_score(9), "no class 9: there are 4"),
        (channel("conv", 0), "no layer 'conv' in Sequential"),
        (class_score(torch.tensor([0, 1, 2])), "3 class indices for 2 images"),
    ],
)
def test_an_objective_the_network_cannot_meet_is_reported(objective, says):
    with pytest.raises(ValueError, match=says):
        ascend(convolutional(), objective, grey(2), steps=1)


def test_a_layer_that_does_not_run_is_reported():
    network = convolutional()
    network.register_module("spare", nn.Identity())
    network.forward = lambda images: network[:5](images)
    with pytest.raises(ValueError, match="nothing was read from layer 'spare'"):
        ascend(network, class_score(0, layer="spare"), grey(1), steps=2)


def test_a_network_without_parameters_can_be_maximised():
    network = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    images = ascend(network, class_score(1) - class_score(0), grey(1), steps=30)
    assert torch.equal(images.mean((2, 3)), torch.tensor([[0, 1, 0.5]]))


def test_a_compiled_network_is_maximised_as_it_was_written():
    network = convolutional()
    options = {"steps": 4, "background": [0.5] * 3}
    expected = class_images(network, torch.tensor([1]), SHAPE, **options)
    compiled = torch.compile(network, backend="eager")
    with torch.no_grad():
        compiled.eval()(torch.rand(1, *SHAPE))
    assert torch.equal(class_images(compiled, torch.tensor([1]), SHAPE, **options), expected)


def test_half_precision_and_autocast_are_no_hindrance():
    images = class_images(convolutional().bfloat16(), torch.tensor([1]), SHAPE, background=[0.5] * 3, steps=3)
    assert images.dtype == torch.float32
    expected = class_images(convolutional(), torch.tensor([1]), SHAPE, background=[0.5] * 3, steps=3)
    with torch.autocast("cpu", torch.bfloat16):
        ours = class_images(convolutional(), torch.tensor([1]), SHAPE, background=[0.5] * 3, steps=3)
    assert torch.equal(ours, expected)
