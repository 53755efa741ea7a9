"""Input gradients: closed forms, objectives side by side, and side effects."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.gradient import gradient, saliency, strongest
from fulgurite.probes.feature_objectives import energy, match
from fulgurite.probes.objectives import Objective, channel, class_score, direction, log_probability
from fulgurite.probes.predict import predict
from fulgurite.probes.task_objectives import output

IMAGES = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))


def linear(classes=3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(40, classes))


def curved() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(24, 3)
    ).train()


def test_a_linear_networks_gradient_is_its_weight_row():
    network = linear()
    classes = torch.tensor([2, 0, 1])
    assert torch.equal(gradient(network, IMAGES, class_score(classes)).flatten(1), network[1].weight[classes])


def test_a_linear_networks_saliency_is_the_largest_weight_of_each_pixel():
    network = linear()
    row = network[1].weight[1].view(2, 4, 5).abs()
    expected = torch.maximum(row[0], row[1])[None].expand(3, 1, 4, 5)
    assert torch.equal(saliency(network, IMAGES, class_score(1)), expected)


def test_the_strongest_channel_may_be_negative():
    assert strongest(torch.tensor([1.0, -3.0]).view(1, 2, 1, 1)).item() == 3


@pytest.mark.parametrize("build", [linear, curved])
def test_an_images_gradient_does_not_depend_on_its_batch(build):
    network, classes = build(), torch.tensor([2, 0, 1])
    together = gradient(network, IMAGES, log_probability(classes))
    for place in range(3):
        alone = gradient(network, IMAGES[place : place + 1], log_probability(int(classes[place])))
        assert_close(together[place : place + 1], alone, rtol=1e-5, atol=1e-7)


def test_several_gradients_equal_one_call_for_each():
    network = curved()
    objectives = [output(0), channel("0", 1), 2 * energy("2") - class_score(1)]
    for ours, objective in zip(gradient(network, IMAGES, objectives), objectives, strict=True):
        assert torch.equal(ours, gradient(network, IMAGES, objective))


def test_the_gradient_is_what_finite_differences_give():
    network, objective, step = curved().double(), log_probability(1, layer="4"), 1e-3
    images = IMAGES[:1].double()

    def score(moved):
        return objective.value({"4": network.eval()(moved)}).double()

    slow = torch.zeros_like(images).flatten()
    with torch.no_grad():
        for place in range(len(slow)):
            nudge = torch.zeros_like(slow)
            nudge[place] = step
            nudge = nudge.view_as(images)
            slow[place] = ((score(images + nudge) - score(images - nudge)) / (2 * step)).item()
    assert_close(gradient(network, images, objective), slow.view_as(images), rtol=1e-3, atol=1e-4)


def test_no_parameter_gets_a_gradient():
    network, images = curved(), IMAGES.clone()
    saliency(network, images, output(0))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not images.requires_grad
    assert network.training


def test_the_gradient_carries_no_graph():
    assert not gradient(curved(), IMAGES.clone().requires_grad_(), output(0)).requires_grad


def test_gradients_are_taken_in_inference_mode_with_targets_made_there():
    network = curved()
    classes = predict(network, IMAGES).argmax(1)
    wanted = [class_score(classes), direction("0", torch.ones(4)), match("4", torch.ones(3, 3))]
    expected = gradient(network, IMAGES, wanted)
    with torch.inference_mode():
        classes = predict(network, IMAGES).argmax(1)
        inside = [class_score(classes), direction("0", torch.ones(4)), match("4", torch.ones(3, 3))]
        ours = gradient(network, IMAGES * 1, inside)
    assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))


def test_a_network_that_starts_with_an_in_place_relu_has_gradients():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(40, 1))
    assert_close(gradient(network, IMAGES, output(0)).flatten(1), network[2].weight.expand(3, -1))


@pytest.mark.parametrize("shape", [(0, 2, 4, 5), (1, 2, 4, 5)])
def test_any_number_of_images_will_do(shape):
    classes = torch.zeros(shape[0], dtype=torch.long)
    assert saliency(linear(classes=1), torch.rand(shape), class_score(classes)).shape == (shape[0], 1, 4, 5)


def test_an_image_of_one_pixel_will_do():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert torch.equal(gradient(network, torch.rand(2, 3, 1, 1), class_score(1))[0, :, 0, 0], torch.eye(3)[1])


def test_weights_that_are_not_numbers_show():
    network = linear()
    with torch.no_grad():
        network[1].weight[0, 3] = float("nan")
    assert gradient(network, IMAGES, output(0)).isnan().sum() == 3


def test_a_network_with_a_dict_output_needs_a_layer_inside():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = linear()

        def forward(self, images):
            return {"logits": self.body(images)}

    with pytest.raises(ValueError, match="outputs a dict, wanted one tensor; name a layer inside it"):
        gradient(Named(), IMAGES, output(0))
    assert torch.equal(
        gradient(Named(), IMAGES, class_score(0, layer="body")), gradient(linear(), IMAGES, output(0))
    )


def test_what_does_not_depend_on_the_images_is_reported():
    constant = Objective(frozenset({""}), lambda seen: seen[""].detach().sum(1))
    with pytest.raises(ValueError, match="the objective does not depend on the images"):
        gradient(linear(), IMAGES, constant)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_images_that_are_not_finite_are_reported(wrong):
    images = IMAGES.clone()
    images[1, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 3 images"):
        gradient(linear(), images, output(0))
