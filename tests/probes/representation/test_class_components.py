"""Components of class scores: closed forms, and a cue that is planted by hand."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.representation.class_components import (
    class_components,
    class_weights,
    codes_and_logits,
    component_maps,
)


def network(last: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    parts = [nn.Linear(6, 4)] if last is None else [last]
    parts = [*pool, *parts] if last is None else [*parts, *pool]
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), *parts)


IMAGES = torch.rand(12, 3, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("last", [None, nn.Conv2d(6, 4, 1)])
def test_components_add_up_to_the_score_less_its_mean(last):
    net = network(last)
    path, weights = class_weights(net, IMAGES)
    assert path == ("4" if last is None else "2")
    codes, logits = codes_and_logits(net, IMAGES, path)
    found = class_components(codes, weights[2])
    assert_close(found.scores(codes).sum(1), logits[:, 2] - logits[:, 2].mean(), rtol=1e-3, atol=1e-5)
    assert_close(found.shares.sum(), torch.tensor(1.0))
    assert (found.shares.diff() <= 1e-7).all()
    scores = found.scores(codes)
    assert_close(scores.var(0) / scores.var(0).sum(), found.shares, rtol=1e-3, atol=1e-5)  # uncorrelated


@pytest.mark.parametrize("last", [None, nn.Conv2d(6, 4, 1)])
def test_a_components_map_is_where_its_part_of_the_score_comes_from(last):
    net = network(last)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    path, weights = class_weights(net, IMAGES)
    codes, _ = codes_and_logits(net, IMAGES, path)
    found = class_components(codes, weights[1], count=2)
    maps = component_maps(net, IMAGES, path, found, 0)
    assert maps.shape == (12, 1, 9, 9)
    # after one convolution and averaging, Grad-CAM is CAM
    own = nn.functional.interpolate(net[1](net[0](IMAGES)), size=(9, 9), mode="bilinear")
    assert_close(maps[:, 0] * 49, (own * found.directions[0][:, None, None]).sum(1), rtol=1e-3, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_cue_that_determines_a_score_is_the_first_component():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(80, 10, generator=generator)
    has = torch.rand(80, generator=generator) < 0.9
    codes[:, 3] += 15 * has
    weights = torch.ones(10)
    found = class_components(codes, weights, count=3)
    scores = found.scores(codes)[:, 0]
    assert scores[has].min() > scores[~has].max()
    assert found.shares[0] > found.shares[1]


def test_what_has_no_components_is_reported():
    with pytest.raises(ValueError, match="2 images of a class; wanted at least 3"):
        class_components(torch.rand(2, 4), torch.rand(4))
    with pytest.raises(ValueError, match="'2' is a convolution of several pixels"):
        class_weights(network(nn.Conv2d(6, 4, 3)), IMAGES)
