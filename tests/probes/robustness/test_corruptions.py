"""Common corruptions: what each does, at any size, the same for an image in any batch."""

import io
import math

import pytest
import torch
from attack_callbacks import Linear
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from fulgurite.probes.robustness.corruption_accuracy import corruption_accuracy
from fulgurite.probes.robustness.corruptions.corrupt import CORRUPTIONS, STRENGTHS, corrupt
from fulgurite.probes.robustness.corruptions.strengths import LARGE, SMALL, levels


class Diverged(nn.Module):
    """NaN for every number."""

    def forward(self, features):
        return features * math.nan


def scene(side: int = 48, *, channels: int = 3, count: int = 2) -> torch.Tensor:
    """Smooth waves with an edge, of other phases in each image."""
    y, x = torch.meshgrid(*(torch.linspace(0, 6.28, side),) * 2, indexing="ij")
    phases = torch.arange(count * channels).view(count, channels, 1, 1) * 0.9
    waves = 0.5 + 0.3 * (x + phases).sin() * (2 * y - phases).cos()
    waves[..., : side // 3, : side // 2] *= 0.4
    return waves


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_of_the_image_and_the_seed_alone_and_grows_with_its_strength(kind):
    images = scene()
    found = [corrupt(images, kind, strength) for strength in STRENGTHS]
    away = [float((one - images).square().mean()) for one in found]
    assert min(away) > 0
    assert away[0] < away[4] or kind == "elastic_transform"  # the first of the paper are of another kind
    for one in found:
        assert one.shape == images.shape
        assert 0 <= float(one.min()) <= float(one.max()) <= 1
        assert torch.equal((one * 255).round() / 255, one)
    assert torch.equal(corrupt(images[1:], kind, 3), found[2][1:])
    drawn = not torch.equal(corrupt(images, kind, 3, seed=1), found[2])
    still = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
    assert drawn == (kind not in still)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 4, 9, 30), (1, 3, 33, 20)])
def test_every_size_and_number_of_channels_will_do(shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for kind in CORRUPTIONS:
        for strength in (1, 5):
            assert corrupt(images, kind, strength).isfinite().all(), kind


def test_strengths_are_the_published_ones_and_lie_between_them_in_between():
    for kind in CORRUPTIONS:
        assert levels(kind, 224) == [pytest.approx(list(level)) for level in LARGE[kind]]
        assert levels(kind, 32) == levels(kind, 8) == [pytest.approx(list(level)) for level in SMALL[kind]]
    assert 0.04 < levels("gaussian_noise", 96)[0][0] < 0.08
    assert levels("motion_blur", 448)[4] == pytest.approx([40, 30])
    assert levels("gaussian_noise", 448) == levels("gaussian_noise", 224)


def test_noise_has_its_size():
    grey = torch.full((1, 3, 224, 224), 0.5)
    assert float((corrupt(grey, "gaussian_noise", 1) - 0.5).std()) == pytest.approx(0.08, rel=0.03)
    photons = corrupt(grey, "shot_noise", 5)  # 3 of them in white
    assert float(photons.mean()) == pytest.approx(0.48, abs=0.02)  # what is brighter than white is cut off
    assert float((photons == 0).float().mean()) == pytest.approx(torch.tensor(-1.5).exp().item(), rel=0.03)
    salt = corrupt(grey, "impulse_noise", 3)
    assert float((salt != 0.5019608).float().mean()) == pytest.approx(0.09, rel=0.05)
    assert float((salt == 1).float().mean()) == pytest.approx(0.045, rel=0.05)


def test_values_are_those_of_the_formula():
    images = scene(224)
    means = images.mean((2, 3), keepdim=True)
    torch.testing.assert_close(
        corrupt(images, "contrast", 2), means + 0.3 * (images - means), rtol=0, atol=0.003
    )
    brighter = corrupt(images, "brightness", 1)
    torch.testing.assert_close(brighter.amax(1), (images.amax(1) + 0.1).clamp(max=1), rtol=0, atol=0.003)
    point = torch.zeros(1, 1, 224, 224)
    point[..., 112, 112] = 1
    disk = corrupt(point * 1.0, "defocus_blur", 5) > 0  # 255 of 256 steps over some 350 pixels
    assert not disk[..., :100, :].any()
    assert not disk[..., 125:, :].any()
    blocks = corrupt(images, "pixelate", 5)
    assert len(blocks[0, 0, 100].unique_consecutive()) <= 56


@pytest.mark.parametrize("strength", [1, 5])
def test_jpeg_is_that_of_an_encoder(strength):
    image = (scene(64)[:1] * 255).round() / 255
    file = io.BytesIO()
    to_pil_image((image[0] * 255).round().byte()).save(
        file, "JPEG", quality=round(levels("jpeg_compression", 64)[strength - 1][0])
    )
    theirs = pil_to_tensor(Image.open(file))[None] / 255
    ours = corrupt(image, "jpeg_compression", strength)
    apart = (ours - theirs).square().mean()
    assert float(apart) < 0.3 * float((theirs - image).square().mean()) + 1e-5


def test_accuracies_and_errors_are_counted_for_each_kind_and_strength():
    images = 0.5 + 0.1 * torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = Linear()(images.clamp(0, 1)).argmax(1)
    labels[0] = 1 - labels[0]
    kinds = ("contrast", "impulse_noise")
    found = corruption_accuracy(Linear(), images.clamp(0, 1), labels, kinds=kinds, strengths=(1, 5))
    assert found.accuracy() == 0.95
    for row, kind in enumerate(kinds):
        for column, strength in enumerate((1, 5)):
            right = Linear()(corrupt(images.clamp(0, 1), kind, strength)).argmax(1) == labels
            assert torch.equal(found.right[row, column], right)
    assert found.errors()["contrast"] == pytest.approx(1 - float(found.right[0].float().mean()))
    assert found.mean_error() == pytest.approx(1 - float(found.right.float().mean()))
    assert found.relative_to(found) == pytest.approx(1)
    low, high = found.interval()
    assert low < found.mean_error() < high
    split = corruption_accuracy(
        Linear(), images.clamp(0, 1), labels, kinds=kinds, strengths=(1, 5), batch_size=7
    )
    assert torch.equal(split.right, found.right)


@pytest.mark.parametrize(
    ("kind", "strength", "complaint"),
    [("fogg", 1, "no corruption 'fogg'; nearest: fog"), ("fog", 6, "strength=6; wanted a whole number")],
)
def test_an_unknown_corruption_is_reported(kind, strength, complaint):
    with pytest.raises(ValueError, match=complaint):
        corrupt(scene(8), kind, strength)
    with pytest.raises(ValueError, match=r"no corruption|strengths from 1 to 5"):
        corruption_accuracy(nn.Flatten(), scene(8), torch.zeros(2).long(), kinds=[kind], strengths=[strength])


@pytest.mark.parametrize(
    ("network", "label", "complaint"),
    [
        (nn.Sequential(nn.Flatten(), Diverged()), 0, "outputs NaN for 2 of 2 images"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), 0, "only one class"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), 3, "label 3, but the network has 3 classes"),
    ],
)
def test_no_accuracy_is_given_of_what_is_no_prediction(network, label, complaint):
    with pytest.raises(ValueError, match=complaint):
        corruption_accuracy(network, scene(8), torch.full((2,), label), kinds=["fog"], strengths=[1])


def test_images_out_of_bounds_are_told_without_a_word_of_attacks():
    with pytest.raises(ValueError, match=r"images from 0.* to 2; wanted \[0, 1\]") as reported:
        corrupt(2 * scene(8) / scene(8).max(), "fog", 1)
    assert "attack" not in str(reported.value)
    with pytest.raises(ValueError, match=r"^no images; the batch is empty$"):
        corrupt(scene(8)[:0], "fog", 1)
