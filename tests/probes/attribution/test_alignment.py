"""Alignment of input gradients with images."""

import pytest
import torch
from torch import nn

from fulgurite.probes.attribution.alignment import alignment


class Linear(nn.Module):
    """Logits that are linear in the pixels of 2 x 2 x 2 images, through a ReLU if asked."""

    def __init__(self, weight: torch.Tensor, relu: bool = False):
        super().__init__()
        self.row = nn.Linear(8, len(weight), bias=False)
        self.row.weight = nn.Parameter(weight)
        self.last = nn.ReLU() if relu else nn.Identity()

    def forward(self, images):
        return self.last(self.row(images.flatten(1)))


@pytest.fixture
def images():
    return torch.rand(5, 2, 2, 2, generator=torch.Generator().manual_seed(1))


def test_with_two_classes_it_is_the_distance_to_the_boundary(images):
    weight = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    seen = alignment(Linear(weight), images)
    normal = weight[0] - weight[1]
    distances = (images.flatten(1) @ normal).abs() / normal.norm()
    torch.testing.assert_close(seen.length, distances)
    torch.testing.assert_close(seen.cosine, distances / images.flatten(1).norm(dim=1))


def test_with_many_classes_it_is_the_distance_to_the_runner_up_s_boundary(images):
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    seen = alignment(Linear(weight), images)
    for image, length, answer, slope in zip(
        images.flatten(1), seen.length, seen.answers, seen.gradient, strict=True
    ):
        first, second = (weight @ image).topk(2).indices
        normal = weight[first] - weight[second]
        assert answer == first
        torch.testing.assert_close(slope.flatten(), normal)
        torch.testing.assert_close(length, image @ normal / normal.norm())


def test_an_image_that_is_the_gradient_is_fully_aligned_and_one_at_right_angles_not_at_all():
    weight = torch.zeros(2, 8)
    weight[0, :4] = 1.0
    images = torch.zeros(2, 8)
    images[0, :4], images[1, 4:] = 0.5, 0.5
    seen = alignment(Linear(weight), images.view(2, 2, 2, 2))
    assert seen.cosine.tolist() == pytest.approx([1, 0])
    assert seen.length.tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20])
def test_the_scale_of_the_logits_does_not_matter(images, scale):
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        alignment(Linear(scale * weight), images).cosine, alignment(Linear(weight), images).cosine
    )


def test_without_a_gradient_or_an_image_it_is_0():
    seen = alignment(Linear(torch.zeros(2, 8)), torch.ones(1, 2, 2, 2))
    assert (seen.length.item(), seen.cosine.item()) == (0, 0)
    seen = alignment(Linear(torch.eye(2, 8)), torch.zeros(1, 2, 2, 2))
    assert (seen.length.item(), seen.cosine.item()) == (0, 0)


def test_an_image_s_alignment_does_not_depend_on_its_batch(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))
    whole = alignment(network, images)
    for place in range(len(images)):
        torch.testing.assert_close(
            alignment(network, images[place : place + 1]).length[0], whole.length[place]
        )


def test_scores_can_be_read_before_a_last_relu(images):
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(3)) - torch.tensor([[0], [3], [3]])
    cut_off = Linear(weight, relu=True)
    assert (cut_off(images) == 0).any()
    plain, before = alignment(Linear(weight), images), alignment(cut_off, images, layer="row")
    assert torch.equal(plain.gradient, before.gradient)
    assert torch.equal(plain.length, before.length)
    assert not torch.equal(plain.gradient, alignment(cut_off, images).gradient)


def test_one_class_is_refused(images):
    with pytest.raises(ValueError, match="the network has only one"):
        alignment(Linear(torch.ones(1, 8)), images)
