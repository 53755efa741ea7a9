"""The sanity check of Adebayo et al. 2018 on a small trained network."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fulgurite.data.digits import Digits
from fulgurite.probes.attribution.model_randomisation import cascading_randomisation
from fulgurite.probes.objectives import class_score

METHODS = ["gradient", "grad_cam", "guided_backprop"]


@cache
def trained() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A network that classifies four digits, images of them, and their classes."""
    data = Digits(only=range(4), size=16, shift=0, noise=0.3)
    data.setup()
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in ((data.channels, 8), (8, 16), (16, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    images, labels = data.train.__getitems__(range(400))
    for _ in range(8):
        for batch in torch.randperm(400).split(40):
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        assert (network.eval()(images).argmax(1) == labels).float().mean() > 0.9
    return network, *data.val.__getitems__(range(16))


@pytest.mark.slow
def test_gradient_and_grad_cam_fall_towards_0_and_guided_backprop_stays_high():
    network, images, labels = trained()
    runs = [
        cascading_randomisation(network, images, class_score(labels), METHODS, seed=seed) for seed in range(4)
    ]
    assert runs[0].layers == ("11", "8", "5", "2")
    # down to the second convolution: with the first, the edges go too
    means = {name: torch.stack([run.correlations[name] for run in runs]).mean((0, 2))[:3] for name in METHODS}
    assert means["gradient"].abs().max() < 0.2
    assert means["grad_cam"].abs()[1:].max() < 0.25
    assert means["guided_backprop"].min() > 0.6


def test_each_layer_draws_what_runs_up_to_it_anew_and_the_network_stays():
    network, images, labels = trained()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    one, same, other = (
        cascading_randomisation(
            network, images[:2], class_score(labels[:2]), ["gradient"], layers=layers, seed=seed
        )
        for layers, seed in ((["5", "2"], 0), (["2", "5"], 0), (["2", "5"], 1))
    )
    assert one.layers == same.layers == ("5", "2")
    assert one.correlations["gradient"].shape == (2, 2)
    assert_close(one.correlations["gradient"], same.correlations["gradient"], rtol=0, atol=0)
    assert not torch.equal(one.correlations["gradient"], other.correlations["gradient"])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_map_without_differences_has_correlation_0():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    nn.init.zeros_(network[1].weight)
    found = cascading_randomisation(
        network, torch.rand(2, 3, 4, 4), class_score(0), ["gradient"], layers=["1"]
    )
    assert found.correlations["gradient"].tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("layers", "words"),
    [(["conv"], "no layer 'conv'"), (["9", "10"], "of '10'")],
)
def test_layers_without_weights_are_reported(layers, words):
    network, images, labels = trained()
    with pytest.raises(ValueError, match=words):
        cascading_randomisation(network, images, class_score(labels), ["gradient"], layers=layers)
