"""A probe from public concepts alone: style transfer by L-BFGS (Gatys et al. 2016)."""

import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.feature_objectives import gram, gram_match, match
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.lbfgs import lbfgs


def stylized(network, content, style, *, content_layer, style_layers, weight=10.0, steps=200, precise=False):
    """The contents of some images in the style of others, or of one."""
    wanted = outputs(network, content, [content_layer])[content_layer]
    styles = outputs(network, style, style_layers)
    objective = match(content_layer, wanted) + weight * sum(
        gram_match(layer, gram(styles[layer])) for layer in style_layers
    )
    return ascend(network, objective, Pixels(content), steps=steps, by=lbfgs(), precise=precise)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 3, padding=1), nn.Softplus(), nn.Conv2d(6, 8, 3, padding=1), nn.Softplus()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


CONTENT, STYLE = torch.rand(2, 2, 3, 12, 16, generator=torch.Generator().manual_seed(0)).unbind()
STYLE = 0.2 + 0.3 * STYLE
LAYERS = {"content_layer": "3", "style_layers": ["1", "3"]}


def test_an_image_in_its_own_style_stays_as_it_is():
    found = stylized(network(), CONTENT, CONTENT, **LAYERS, steps=20)
    assert_close(found, CONTENT, rtol=0, atol=1e-5)


def test_under_a_layer_that_copies_the_image_style_is_the_second_moments_of_colours():
    copying = nn.Sequential(nn.Identity(), nn.Conv2d(3, 3, 1))
    found = stylized(copying, CONTENT, STYLE, content_layer="0", style_layers=["0"], weight=1e4)
    assert_close(gram(found), gram(STYLE), rtol=1e-2, atol=1e-4)
    assert (found - CONTENT).square().mean() < (STYLE - CONTENT).square().mean()


def test_grams_come_near_and_contents_stay_nearer_than_those_of_the_style():
    net = network()
    found = stylized(net, CONTENT, STYLE, **LAYERS, steps=120)
    seen, content, style = (outputs(net, own, ["1", "3"]) for own in (found, CONTENT, STYLE))
    for layer in seen:
        error, start = (
            (gram(own[layer]) - gram(style[layer])).square().sum((1, 2)) for own in (seen, content)
        )
        assert (error < 0.01 * start).all()
    far = [(own["3"] - content["3"]).square().flatten(1).sum(1) for own in (seen, style)]
    assert (far[0] < far[1]).all()


def test_images_in_one_style_are_those_made_one_by_one():
    together = stylized(network(), CONTENT, STYLE[:1], **LAYERS, steps=30, precise=True)
    for place in (0, 1):
        alone = stylized(network(), CONTENT[place : place + 1], STYLE[:1], **LAYERS, steps=30, precise=True)
        assert_close(together[place : place + 1], alone, rtol=0, atol=1e-5)
