"""Caricatures and accentuated photographs: compared with a reference that goes through the same transform."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from benchmarks.class_images import squeezenet
from fulgurite.probes.feature_extractor import outputs
from fulgurite.probes.feature_objectives import exaggeration, likeness
from fulgurite.probes.objectives import channel, class_score
from fulgurite.probes.predict import predict
from fulgurite.probes.record import LayerOutputs
from fulgurite.probes.synthesis.accentuation import accentuate
from fulgurite.probes.synthesis.ascend import ascend
from fulgurite.probes.synthesis.canvas import Pixels
from fulgurite.probes.synthesis.caricature import caricature
from fulgurite.probes.synthesis.features import values_of
from fulgurite.probes.synthesis.gradients import tiled
from fulgurite.probes.synthesis.optimizers import sgd
from fulgurite.probes.synthesis.transforms import affine, chain, identity, jitter, lucid

IMAGES = 0.1 + 0.8 * F.interpolate(
    torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)), (12, 12), mode="bilinear"
)


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3), nn.ReLU(inplace=True), *pooled
    ).train()


def seen(own: torch.Tensor, reference: torch.Tensor) -> LayerOutputs:
    both = LayerOutputs(nn.Identity()), LayerOutputs(nn.Identity())
    for one, value in zip(both, (own, reference), strict=True):
        one["x"] = value
        one.modules = {"x": nn.Identity()}
    both[0].reference = both[1]
    return both[0]


def test_exaggeration_and_likeness_are_those_worked_out_by_hand():
    own, reference = torch.tensor([[1.0, 2, 3], [0, 2, 0]]), torch.tensor([[2.0, -1, 1], [0, 0, 0]])
    # what is below 0 in the reference does not count: (2, 0, 1), of squared length 5
    assert_close(exaggeration("x").value(seen(own, reference)), torch.tensor([1.0, 0]))
    cosine = 5 / (5 * 14) ** 0.5
    assert_close(exaggeration("x", power=2).value(seen(own, reference))[0], torch.tensor(cosine**2))
    assert_close(likeness("x").value(seen(own, reference))[0], torch.tensor(-(1 + 9 + 4) / 6))
    assert_close(likeness("x").value(seen(reference, reference)), torch.zeros(2))
    with pytest.raises(ValueError, match="there is no reference to compare with; wanted ascend"):
        likeness("x").value({"x": own})


NOISY = lambda images: images + 0.1 * torch.randn(images.shape)  # noqa: E731


@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.parametrize(
    "transform", [identity, jitter(3), affine(shift=0.2, degrees=20, zoom=1.3), chain(NOISY, lucid())]
)
def test_reference_and_image_go_through_the_same_transform(transform, batch):
    # with any other draw the two would differ, and the image would move
    moved = ascend(
        nn.Sequential(nn.Identity()),
        likeness("0"),
        Pixels(IMAGES),
        steps=4,
        by=sgd(100.0),
        transform=transform,
        reference=IMAGES,
        batch=batch,
    )
    assert torch.equal(moved, IMAGES)


def test_without_a_transform_likeness_is_a_match():
    start = IMAGES.flip(3)
    images = ascend(
        nn.Sequential(nn.Identity()), likeness("0"), Pixels(start), steps=60, by=sgd(50.0), reference=IMAGES
    )
    assert_close(images, IMAGES, rtol=0, atol=1e-3)


@pytest.mark.parametrize("seeds", [None, [0, 1, 2]])
@pytest.mark.parametrize("layer", ["1", "2", ""])
def test_a_caricature_has_more_of_what_a_layer_sees(layer, seeds):
    network = convolutional()
    made = caricature(network, IMAGES, layer, seeds=seeds, steps=60, transform=identity)
    before, after = (outputs(network, images, [layer])[layer].flatten(1) for images in (IMAGES, made))
    before = before.clamp(min=0)
    ratio = (before * after).sum(1) / before.square().sum(1)
    assert (ratio > 1.3).all()
    assert made.min() >= 0
    assert made.max() <= 1


def test_the_cosine_keeps_the_pattern():
    network = convolutional()
    plain, alike = (caricature(network, IMAGES, "2", power=power, steps=60) for power in (0.0, 8.0))
    code = outputs(network, IMAGES, ["2"])["2"].flatten(1).clamp(min=0)
    one, other = (
        torch.cosine_similarity(outputs(network, images, ["2"])["2"].flatten(1), code)
        for images in (plain, alike)
    )
    assert (other > one).all()


def test_an_accentuated_feature_rises_and_the_photograph_stays():
    network, asked = convolutional(), channel("2", torch.tensor([0, 1, 2]))
    made = {
        strength: accentuate(network, IMAGES, asked, near="0", strength=strength, steps=60)
        for strength in (0.0, 1.0, 1000.0)
    }
    distances = {strength: (images - IMAGES).square().mean() for strength, images in made.items()}
    assert distances[0.0] > 1.5 * distances[1.0] > 15 * distances[1000.0]
    assert (values_of(network, asked, made[1.0]) > values_of(network, asked, IMAGES)).all()
    with pytest.raises(ValueError, match=r"strength=-1; wanted at least 0"):
        accentuate(network, IMAGES, asked, near="0", strength=-1.0)


MAKE = {
    "caricature": lambda network, images, seeds: caricature(
        network, images, "2", seeds=seeds, steps=8, precise=True
    ),
    "accentuate": lambda network, images, seeds: accentuate(
        network, images, channel("2", torch.tensor(seeds)), near="0", steps=8, precise=True
    ),
}


@pytest.mark.parametrize("name", MAKE)
def test_a_batch_is_its_images_one_by_one_and_nothing_is_left_behind(name):
    network, make = convolutional(), MAKE[name]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    together = make(network, IMAGES, [0, 1, 2])
    for place in range(3):
        alone = make(network, IMAGES[place : place + 1], [place])
        assert_close(alone[0], together[place], rtol=0, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_what_cannot_be_is_reported():
    network = convolutional()
    with pytest.raises(ValueError, match="2 seeds for 3 images"):
        caricature(network, IMAGES, "2", seeds=[0, 1])
    with pytest.raises(ValueError, match="no layer 'nine'"):
        caricature(network, IMAGES, "nine")
    with pytest.raises(ValueError, match=r"references \(2, 3, 12, 12\) for images \(3, 3, 12, 12\); wanted"):
        ascend(network, likeness("0"), Pixels(IMAGES), steps=1, reference=IMAGES[:2])
    with pytest.raises(ValueError, match="and tiles; wanted one for each, of its size, and whole gradients"):
        ascend(network, likeness("0"), Pixels(IMAGES), steps=1, reference=IMAGES, gradient=tiled(8))


@pytest.mark.slow
def test_a_real_network_is_surer_of_an_accentuated_class_while_the_photograph_stays(real_data):
    from real_images import photographs

    network, photos = squeezenet(real_data), photographs(real_data, [10, 60, 120], 112)
    guesses = predict(network, photos).argmax(1)
    asked = class_score(guesses, layer="classifier.1")
    made = accentuate(network, photos, asked, near="features.4", steps=48)
    assert (values_of(network, asked, made) > 1.2 * values_of(network, asked, photos)).all()
    assert ((made - photos).square().flatten(1).mean(1).sqrt() < 0.15).all()
