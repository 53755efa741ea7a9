"""Texture synthesis and style transfer: Gram matrices approach the target, content and colours stay."""

import io
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close
from torchvision.transforms.functional import to_tensor

from fulgurite.models.networks import build
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.feature_objectives import gram
from fulgurite.probes.synthesis.colours import luminance, same_mean_and_deviation, with_luminance
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.textures import style_match, style_transfer, texture


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 3, padding=1), nn.Softplus(), nn.Conv2d(6, 8, 3, padding=1), nn.Softplus()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


CONTENT, STYLE = torch.rand(2, 2, 3, 12, 16, generator=torch.Generator().manual_seed(0)).unbind()
STYLE = 0.2 + 0.3 * STYLE
LAYERS = {"content_layer": "3", "style_layers": ["1", "3"]}


def test_a_gram_matrix_is_the_same_wherever_things_are_and_a_texture_is_its_own():
    out = torch.rand(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    assert_close(gram(out.flatten(2)[:, :, order]), gram(out))
    assert values_of(network(), style_match(network(), STYLE[:1], ["1", "3"]), STYLE[:1]).item() == 0


def test_an_image_in_its_own_style_stays_as_it_is():
    found = style_transfer(network(), CONTENT[:1], [CONTENT[:1]], **LAYERS, steps=20)
    assert_close(found, CONTENT[:1], rtol=0, atol=1e-5)


def test_under_a_layer_that_copies_the_image_style_is_the_second_moments_of_colours():
    copying = nn.Sequential(nn.Identity(), nn.Conv2d(3, 3, 1))
    found = style_transfer(
        copying, CONTENT, [STYLE[:1]], content_layer="0", style_layers=["0"], weight=1e4, steps=200
    )
    assert_close(gram(found), gram(STYLE[:1]).expand(2, -1, -1), rtol=1e-2, atol=1e-4)
    assert (found - CONTENT).square().mean() < (STYLE[:1] - CONTENT).square().mean()


@pytest.mark.parametrize("by", ["lbfgs", "adam"])
def test_grams_come_near_and_contents_stay_nearer_than_those_of_the_style(by):
    net = network()
    found = style_transfer(net, CONTENT, [STYLE[:1]], **LAYERS, steps=120, by=by)
    seen, content, style = (outputs(net, own, ["1", "3"]) for own in (found, CONTENT, STYLE[:1]))
    for layer in seen:
        error, start = (
            (gram(own[layer]) - gram(style[layer])).square().sum((1, 2)) for own in (seen, content)
        )
        assert (error < 0.02 * start).all()
    far = [(own["3"] - content["3"]).square().flatten(1).sum(1) for own in (seen, style)]
    assert (far[0] < far[1]).all()


def test_images_in_one_style_are_those_made_one_by_one():
    together = style_transfer(network(), CONTENT, [STYLE[:1]], **LAYERS, steps=30, precise=True)
    for place in (0, 1):
        alone = style_transfer(
            network(), CONTENT[place : place + 1], [STYLE[:1]], **LAYERS, steps=30, precise=True
        )
        assert_close(together[place : place + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_several_styles_are_mixed_by_their_weights():
    net, other = network(), 0.6 + 0.4 * STYLE[1:]

    def distances(mix):
        found = style_transfer(net, CONTENT[:1], [STYLE[:1], other], **LAYERS, mix=mix, steps=60)
        return [
            -float(values_of(net, style_match(net, own, ["1", "3"]), found)) for own in (STYLE[:1], other)
        ]

    first, both, second = distances([1, 0]), distances(None), distances([0, 1])
    assert first[0] < both[0] < second[0]
    assert second[1] < both[1] < first[1]


def test_from_noise_contents_come_back_too():
    net = network()
    found = style_transfer(net, CONTENT, [STYLE[:1]], **LAYERS, weight=0.0, start="noise", steps=150)
    assert (found - CONTENT).abs().mean() < 0.05


def test_with_kept_colours_only_the_luminance_changes():
    found = style_transfer(network(), CONTENT, [STYLE[:1]], **LAYERS, steps=30, keep_colours=True)
    chroma, before = found - luminance(found), CONTENT - luminance(CONTENT)
    assert (luminance(found) - luminance(CONTENT)).abs().mean() > 0.02
    # hue is the same: chroma is the photograph's times a share
    lengths = chroma.norm(dim=1) * before.norm(dim=1)
    assert_close((chroma * before).sum(1), lengths, rtol=0, atol=1e-5)
    assert (chroma.norm(dim=1) <= before.norm(dim=1) + 1e-6).all()


def test_an_image_has_exactly_the_luminance_it_is_given():
    level = torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(3))
    found = with_luminance(CONTENT, level)
    assert_close(luminance(found), level, rtol=0, atol=1e-6)
    assert found.min() >= 0
    assert found.max() <= 1
    assert_close(with_luminance(CONTENT, luminance(CONTENT)), CONTENT)


def test_moments_are_those_of_the_reference():
    found = same_mean_and_deviation(0.4 + 0.1 * CONTENT, STYLE)
    assert_close(found.mean((2, 3)), STYLE.mean((0, 2, 3)).expand(2, 3), rtol=0, atol=1e-3)
    assert_close(found.std((2, 3)), STYLE.std((0, 2, 3)).expand(2, 3), rtol=0, atol=2e-3)


@pytest.mark.slow
def test_textures_have_the_grams_of_their_example_and_differ_by_seed():
    net = network()
    stripes = torch.zeros(1, 3, 12, 16)
    stripes[:, 0, :, ::4] = stripes[:, 2, ::3] = 1
    made = texture(net, stripes, (20, 10), layers=["1", "3"], seeds=[0, 1], steps=150)
    start = texture(net, stripes, (20, 10), layers=["1", "3"], seeds=[0, 1], steps=0)
    objective = style_match(net, stripes, ["1", "3"])
    assert made.shape == (2, 3, 20, 10)
    assert (-values_of(net, objective, made) < -values_of(net, objective, start) / 30).all()
    assert (made[0] - made[1]).abs().mean() > 0.02
    assert torch.equal(texture(net, stripes, (20, 10), layers=["1", "3"], seeds=[0, 1], steps=150), made)


@pytest.mark.slow
def test_the_gram_loss_of_a_real_network_falls_thirty_times(real_data: Path):
    net = build(
        "torchvision/squeezenet1_0",
        classes=1000,
        channels=3,
        pretrained=False,
        weights=real_data / "squeezenet1_0_imagenet_fp16.safetensors",
    )
    with zipfile.ZipFile(real_data / "imagenet_samples_200_short256_q90.zip") as archive:
        name = next(one for one in archive.namelist() if "zebra" in one)
        image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
    example = to_tensor(image)[None, :, :96, :96]
    layers = ["features.1", "features.5", "features.10"]
    start, made = (texture(net, example, (96, 96), layers=layers, steps=steps) for steps in (0, 100))
    objective = style_match(net, example, layers)
    assert values_of(net, objective, start).item() < 30 * values_of(net, objective, made).item()


@pytest.mark.parametrize(
    ("wrong", "printed"),
    [
        ({"styles": []}, "at least one style"),
        ({"mix": [1.0, 2.0]}, "a weight for each"),
        ({"weight": -1.0}, "weight=-1, tv=0; wanted no negative ones"),
        ({"mix": [0.0]}, "not all 0"),
        ({"by": "newton"}, "wanted 'lbfgs' or 'adam'"),
        ({"style_layers": ["nine"]}, "nine"),
    ],
)
def test_styles_that_make_no_sense_are_refused(wrong, printed):
    with pytest.raises(ValueError, match=printed):
        style_transfer(network(), CONTENT, **{"styles": [STYLE[:1]], **LAYERS, **wrong})


def test_a_texture_has_one_example():
    with pytest.raises(ValueError, match="wanted one"):
        texture(network(), STYLE, (8, 8))
