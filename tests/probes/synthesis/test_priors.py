"""Image priors by hand."""

import pytest
import torch
from torch.testing import assert_close

from fulgurite.probes.synthesis.priors import bounded_range, l2, total_variation

IMAGES = torch.tensor([[[[1.0, 2], [4, 8]]], [[[0, 0], [0, 3]]]])
COLOURS = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 1)


@pytest.mark.parametrize(
    ("prior", "images", "expected"),
    [
        (l2(2.0), IMAGES, [2 * 85, 2 * 9]),
        (l2(1.0, background=[1.0]), IMAGES, [0 + 1 + 9 + 49, 1 + 1 + 1 + 4]),
        (l2(1.0, background=[0.5, 0.0]), COLOURS, [3]),
        (total_variation(1.0), IMAGES, [1 + 16 + 9 + 36, 9 + 9]),
        (total_variation(0.5), COLOURS, [0]),
        (total_variation(1.0), IMAGES[:, :, :1, :1], [0, 0]),
        (total_variation(2.0, beta=1), IMAGES, [2 * (10**0.5 + 6 + 4), 2 * (3 + 3)]),
        (total_variation(1.0, beta=3), IMAGES, [10**1.5 + 6**3 + 4**3, 27 + 27]),
        (total_variation(1.0, beta=1), COLOURS, [0]),
        (total_variation(1.0, linear=0.5), IMAGES, [10 + 6**2 + 4**2 + 0.5 * (10**0.5 + 6 + 4), 18 + 3]),
        (bounded_range(1.0), COLOURS, [3 / 8]),
        (bounded_range(2.0, alpha=2, background=[0.0, 1.0]), COLOURS, [3]),
        (bounded_range(1.0, alpha=1), torch.tensor([[[[0.5, 1.0]], [[0.5, 0.5]]]]), [0.5**0.5]),
        (total_variation(1.0, beta=1), IMAGES[:0], []),
        (l2(1.0), IMAGES[:0], []),
        (total_variation(1.0), IMAGES[:0], []),
    ],
)
def test_a_prior_costs_what_was_worked_out_by_hand(prior, images, expected):
    assert_close(prior(images), torch.tensor(expected, dtype=torch.float32))


def variation(image: torch.Tensor, beta: float) -> torch.Tensor:
    """As the paper writes it, a pixel at a time."""
    channels, height, width = image.shape
    cost = image.new_zeros(())
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                down = image[c, i + 1, j] - image[c, i, j] if i + 1 < height else 0
                across = image[c, i, j + 1] - image[c, i, j] if j + 1 < width else 0
                cost = cost + (down**2 + across**2 + 0 * image[c, i, j]) ** (beta / 2)
    return cost


def test_a_linear_part_of_total_variation_is_one_with_beta_1():
    image = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    (both,) = slopes_of(total_variation(0.5, linear=0.3), image)
    apart = [slopes_of(total_variation(weight, beta=beta), image)[0] for weight, beta in ((0.5, 2), (0.3, 1))]
    assert_close(both, sum(apart))


def slopes_of(prior, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(prior(leaf).sum(), leaf)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
def test_total_variation_and_its_gradient_are_those_of_a_slow_twin(beta):
    image = torch.rand(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image.requires_grad_()
    ours, slow = total_variation(0.5, beta=beta)(image[None])[0], 0.5 * variation(image, beta)
    assert_close(ours, slow)
    (slope,) = torch.autograd.grad(ours, image)
    # the last pixel has no differences, and of those a root has no slope: by finite differences
    with torch.no_grad():
        moves = 1e-6 * torch.eye(image.numel(), dtype=image.dtype).view(-1, *image.shape)
        risen = [variation(image + move, beta) - variation(image - move, beta) for move in moves]
    expected = 0.5 * torch.stack(risen).view_as(image) / 2e-6
    assert_close(slope, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prior", [total_variation(1.0, beta=1), bounded_range(1.0, alpha=1)])
def test_a_plain_image_has_no_slope_where_a_root_has_none(prior):
    image = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(prior(image).sum(), image)
    assert not slope.any()


@pytest.mark.parametrize(("make", "printed"), [(total_variation, "beta"), (bounded_range, "alpha")])
def test_a_power_below_one_is_refused(make, printed):
    with pytest.raises(ValueError, match=rf"{printed}=0\.5; wanted a power of at least 1"):
        make(1.0, **{printed: 0.5})
