"""Inversion: information that a layer keeps is reconstructed, lost information is not; no side effects."""

import io
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.synthesis.inversion import (
    LOG_PROBABILITIES,
    codes_of,
    invert,
    mean_distance,
    psnr,
    table,
)
from fulgurite.probes.synthesis.watch import Watch

# smooth, and not black or white, as photographs mostly are
IMAGES = 0.1 + 0.8 * F.interpolate(
    torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)), (12, 12), mode="bilinear"
)
LAYERS = ["0", "1", "2", "4", "", LOG_PROBABILITIES]


def convolutional(side: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(12 * side**2, 5),
    ).train()


@pytest.mark.parametrize("prior", ["none", "tv1", "tv2"])
def test_an_invertible_layer_gives_the_image_back(prior):
    found = invert(convolutional(), IMAGES, "0", seeds=[0, 1], prior=prior, strength=1e-4, steps=200)
    assert found.images.shape == (2, *IMAGES.shape)
    assert_close(found.images, IMAGES.expand(2, -1, -1, -1, -1), rtol=0, atol=0.03)
    assert found.relative_error.max() < 0.01
    assert found.psnr.min() > 40
    assert found.spread.max() < 0.01


def test_of_a_linear_layer_the_seen_part_comes_back_and_the_other_part_is_the_starts():
    # this layer sees one number of an image: the mean of its first channel
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1, bias=False))
    network[2].weight.data = torch.tensor([[2.0, 0.0, 0.0]])
    found = invert(network, IMAGES, "", seeds=[3, 4], prior="none", steps=40)
    means = found.images.mean((3, 4))[..., 0]
    assert_close(means, IMAGES.mean((2, 3))[:, 0].expand(2, -1), rtol=0, atol=1e-3)
    assert found.relative_error.max() < 1e-3
    assert found.psnr.max() < 20  # nothing else is known
    assert (found.spread > 0.005).all()


def test_the_numbers_are_those_worked_out_by_hand():
    network = convolutional()
    found = invert(network, IMAGES, "2", seeds=[0, 1], steps=5)
    code = codes_of(network, IMAGES, "2")
    distances = [(code[i] - code[j]).norm() for i, j in ((0, 1), (0, 2), (1, 2))]
    for r in range(2):
        for i in range(3):
            image = found.images[r, i]
            error = (codes_of(network, image[None], "2")[0] - code[i]).norm()
            assert_close(found.relative_error[r, i], error / code[i].norm(), rtol=1e-4, atol=1e-6)
            assert_close(
                found.normalized_error[r, i], error / torch.stack(distances).mean(), rtol=1e-4, atol=1e-6
            )
            assert_close(found.psnr[r, i], -10 * F.mse_loss(image, IMAGES[i]).log10())
    first, second = found.images
    assert_close(found.spread, ((first - second).square() / 4).flatten(1).mean(1).sqrt())
    assert mean_distance(code) == pytest.approx(float(torch.stack(distances).mean()), rel=1e-5)
    assert set(found.means()) == {"relative_error", "normalized_error", "psnr", "spread"}
    head, row = table({"": found})
    assert len(head) == len(row) == 5
    assert row[0] == "logits"


def test_one_image_needs_a_given_distance_to_others():
    network = convolutional()
    assert invert(network, IMAGES[:1], "0", seeds=[0], steps=1).normalized_error.isnan().all()
    reported = invert(network, IMAGES[:1], "0", seeds=[0], steps=1, distance=2.0)
    length = codes_of(network, IMAGES[:1], "0").norm()
    assert_close(reported.normalized_error, reported.relative_error * length / 2)


def test_the_same_image_has_the_largest_psnr():
    assert psnr(IMAGES, IMAGES).tolist() == [99.0] * 3
    assert psnr(IMAGES[:1] * 0, IMAGES[:1] * 0 + 0.1)[0] == pytest.approx(20, abs=1e-4)


def test_log_probabilities_do_not_know_what_logits_know():
    network = convolutional().eval()
    code = codes_of(network, IMAGES, LOG_PROBABILITIES)
    assert_close(code.exp().sum(1), torch.ones(3))
    found = invert(network, IMAGES, LOG_PROBABILITIES, seeds=[0], steps=60)
    assert found.relative_error.max() < 0.01
    assert_close(codes_of(network, found.images[0], LOG_PROBABILITIES), code, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_batch_is_its_images_one_by_one(layer):
    network, knobs = convolutional(), {"seeds": [0, 5], "steps": 12, "precise": True}
    together = invert(network, IMAGES, layer, **knobs)
    for place in range(3):
        alone = invert(network, IMAGES[place : place + 1], layer, **knobs)
        assert_close(alone.images[:, 0], together.images[:, place], rtol=0, atol=1e-5)
        assert_close(alone.psnr[:, 0], together.psnr[:, place], rtol=0, atol=1e-2)
    other = invert(network, IMAGES, layer, seeds=[5], steps=12, precise=True)
    assert_close(other.images[0], together.images[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_is_left_behind(layer):
    network = convolutional()
    network[4].weight.grad = torch.ones_like(network[4].weight)
    network[1].eval()
    torch.manual_seed(7)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    invert(network, IMAGES, layer, seeds=[0], steps=3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(network[4].weight.grad, torch.ones_like(network[4].weight))
    assert network[0].weight.grad is None
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


def test_a_warm_start_continues_where_the_last_one_ended():
    network = convolutional()
    first = invert(network, IMAGES, "0", seeds=[0, 1], steps=30)
    again = invert(network, IMAGES, "0", seeds=[0, 1], steps=0, start=first.images)
    assert_close(again.images, first.images, rtol=0, atol=2e-3)
    further = invert(network, IMAGES, "0", seeds=[0, 1], steps=10, start=first.images)
    fresh = invert(network, IMAGES, "0", seeds=[0, 1], steps=10)
    assert further.psnr.mean() > fresh.psnr.mean() + 5


def test_ctrl_c_keeps_the_best():
    class Stops(nn.Module):
        calls = 0

        def forward(self, images):
            Stops.calls += 1
            if Stops.calls > 20:
                Stops.calls = -1000
                raise KeyboardInterrupt
            return images.flatten(1) * 2

    watch = Watch(best=True)
    found = invert(nn.Sequential(Stops()), IMAGES, "0", seeds=[0], steps=300, watch=watch)
    assert watch.interrupted
    assert found.relative_error.max() < 0.2


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"layer": "nine"}, "no layer 'nine'"),
        ({"strength": -1}, "strength of at least 0"),
        ({"seeds": []}, "no seed; wanted at least one"),
        ({"start": torch.rand(2, 3, 3, 12, 12)}, r"start is \(2, 3, 3, 12, 12\); wanted \(1, 3, "),
    ],
)
def test_what_cannot_be_is_reported(knobs, words):
    with pytest.raises(ValueError, match=words):
        invert(convolutional(), IMAGES, **{"layer": "0", "seeds": [0], "steps": 1, **knobs})


def test_it_works_where_gradients_are_switched_off():
    network = convolutional()
    expected = invert(network, IMAGES, "2", seeds=[0], steps=4).images
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert_close(invert(network, IMAGES, "2", seeds=[0], steps=4).images, expected)


@pytest.fixture(scope="module")
def cifar(real_data) -> tuple[nn.Module, torch.Tensor]:
    """A small network, trained for some steps on real photographs, and ten of those."""
    archive = zipfile.ZipFile(real_data / "cifar10_jpeg_small_5000_1000.zip")
    names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::10]
    kinds = sorted({name.split("/")[-2] for name in names})
    read = [np.array(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    images = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / 255
    labels = torch.tensor([kinds.index(name.split("/")[-2]) for name in names])
    torch.manual_seed(0)
    layers, last = [], 3
    for width, stride in ((20, 1), (20, 2), (40, 1), (40, 2)):
        layers += [nn.Conv2d(last, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        last = width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(3):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
    return network, images[:: len(images) // 9][:10]


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["none", "tv2"])
def test_the_first_convolution_of_a_real_network_is_inverted_to_one_percent_and_forty_decibels(cifar, prior):
    found = invert(*cifar, "0", seeds=[0, 1], prior=prior, steps=300)
    assert found.relative_error.mean() < 0.01
    assert found.psnr.mean() > 40


@pytest.mark.figures
def test_deeper_layers_of_a_real_network_know_less_of_the_image(cifar):
    decibels = [invert(*cifar, layer, seeds=[0]).means()["psnr"] for layer in ("0", "3", "9", "")]
    assert decibels == sorted(decibels, reverse=True)
    assert decibels[-1] < 20 < 40 < decibels[0]
