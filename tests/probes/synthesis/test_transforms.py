"""Random transforms: ranges, gradients and seeds."""

import pytest
import torch
from torch.testing import assert_close

from fulgurite.probes.synthesis.transforms import (
    TRANSFORMS,
    affine,
    chain,
    identity,
    jitter,
    lucid,
    noise,
    padding,
    random_crops,
    scaling,
)

IMAGES = torch.rand(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))


def test_jitter_is_a_roll_of_the_whole_batch():
    rolls = [IMAGES.roll((down, right), (2, 3)) for down in range(-2, 3) for right in range(-2, 3)]
    torch.manual_seed(0)
    met = set()
    for _ in range(300):
        moved = jitter(2)(IMAGES)
        met.add([torch.equal(moved, roll) for roll in rolls].index(True))
    assert met == set(range(25))


def test_no_jitter_is_no_change():
    assert torch.equal(jitter(0)(IMAGES), IMAGES)


@pytest.mark.parametrize("size", [(6, 9), (8, 8), (1, 1), (1, 5)])
def test_no_shift_turn_or_zoom_is_no_change(size):
    images = torch.rand(2, 3, *size)
    assert_close(affine()(images), images, rtol=0, atol=1e-6)


def blob(height: int, width: int, y: float, x: float) -> torch.Tensor:
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    return torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)[None, None]


def centre(image: torch.Tensor) -> torch.Tensor:
    rows, columns = (torch.arange(size) - (size - 1) / 2 for size in image.shape[2:])
    weight = image[0, 0] / image.sum()
    return torch.stack([(weight.sum(1) * rows).sum(), (weight.sum(0) * columns).sum()])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(101, 101), (101, 121)])
def test_a_turn_keeps_distances_on_an_oblong_too(size, seed):
    image = blob(*size, (size[0] - 1) / 2 + 6, (size[1] - 1) / 2 + 8)
    torch.manual_seed(seed)
    turned = affine(degrees=180)(image)
    assert_close(centre(turned).norm(), torch.tensor(10.0), rtol=0, atol=0.1)
    torch.manual_seed(seed)
    angle = (2 * torch.rand(4) - 1)[2] * torch.pi
    cosine = centre(turned) @ centre(image) / 100
    assert_close(cosine, angle.cos(), rtol=0, atol=0.02)
    assert_close(turned.sum(), image.sum(), rtol=0.01, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_shift_is_a_share_of_the_side(seed):
    image = blob(61, 41, 30, 20)
    torch.manual_seed(seed)
    moved = affine(shift=0.1)(image)
    torch.manual_seed(seed)
    down, right = (2 * torch.rand(4) - 1)[:2]
    assert_close(centre(moved), -torch.stack([6.1 * down, 4.1 * right]), rtol=0, atol=0.05)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("zoom", "low", "high"), [(1.5, 1 / 1.5, 1.5), ((1.2, 1.6), 1.2, 1.6)])
def test_a_zoom_grows_areas_by_its_square(zoom, low, high, seed):
    image = blob(61, 61, 30, 30)
    torch.manual_seed(seed)
    grown = affine(zoom=zoom)(image)
    torch.manual_seed(seed)
    factor = low * (high / low) ** torch.rand(4)[3]
    assert_close(grown.sum() / image.sum(), factor**2, rtol=0.01, atol=0)


@pytest.mark.parametrize("zoom", [0, 0.5, (0, 1), (1.2, 1.1)])
def test_a_zoom_is_a_range_of_magnifications(zoom):
    with pytest.raises(ValueError, match="wanted at least 1, or the lowest and the highest"):
        affine(zoom=zoom)


@pytest.mark.parametrize(
    "transform",
    [identity, jitter(2), affine(shift=0.1, degrees=10, zoom=1.1), affine(shift=0.1, each=True)],
)
def test_a_transform_keeps_the_shape_of_any_batch(transform):
    for count in (0, 1, 2):
        assert transform(IMAGES[:count]).shape == (count, 3, 6, 9)


def test_images_of_a_batch_move_alike_or_each_by_its_own_draw():
    images = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
    how = {"shift": 0.2, "degrees": 30, "zoom": 1.5}
    torch.manual_seed(1)
    alike = affine(**how)(images)
    torch.manual_seed(1)
    apart = affine(**how, each=True)(images)
    assert all(torch.equal(one, alike[0]) for one in alike)
    assert_close(apart[0], alike[0])  # the first draw is the same
    assert all((one - alike[0]).abs().mean() > 0.05 for one in apart[1:])
    assert (apart[1] - apart[2]).abs().mean() > 0.05


def test_a_chain_is_one_after_the_other():
    assert torch.equal(chain(lambda images: images + 1, lambda images: 2 * images)(IMAGES), 2 * (IMAGES + 1))
    assert torch.equal(chain()(IMAGES), IMAGES)


def test_padding_is_a_plain_border():
    padded = padding(2, level=0.25)(IMAGES)
    assert torch.equal(padded[:, :, 2:-2, 2:-2], IMAGES)
    assert padded.sum() == pytest.approx(float(IMAGES.sum() + 0.25 * 2 * 3 * (10 * 13 - 6 * 9)))


def test_scaling_changes_the_size_by_the_factor_drawn():
    images, seen = torch.rand(1, 1, 40, 60), set()
    torch.manual_seed(0)
    for _ in range(100):
        height, width = scaling(0.5, 1.5)(images).shape[2:]
        assert abs(width - 1.5 * height) <= 1
        seen.add(height)
    assert min(seen) < 24
    assert max(seen) > 56


def test_lucids_chain_pads_scales_and_turns_and_has_a_gradient():
    images = torch.rand(2, 3, 40, 40, requires_grad=True)
    torch.manual_seed(0)
    seen = {lucid()(images).shape[2] for _ in range(30)}
    assert min(seen) >= 57
    assert max(seen) <= 71
    assert len(seen) > 5
    (slope,) = torch.autograd.grad(lucid()(images).sum(), images)
    assert slope.mean() == pytest.approx(1, abs=0.25)  # nearly nothing is cut off
    assert set(TRANSFORMS) == {"none", "affine", "lucid"}


def test_random_crops_show_parts_of_the_image_enlarged():
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64).contiguous()
    torch.manual_seed(0)
    shares = []
    for _ in range(200):
        cropped = random_crops(0.1, 0.5)(ramp)
        assert cropped.shape == ramp.shape
        slope = cropped.diff(dim=3)[..., 8:-8] * 63
        assert_close(slope, slope.mean().expand_as(slope), atol=1e-3, rtol=0)  # nothing from beyond the edge
        shares.append(slope.mean().item())
    assert 0.1 < min(shares) < 0.15
    assert 0.45 < max(shares) < 0.5
    with pytest.raises(ValueError, match=r"low=0, high=0\.5"):
        random_crops(0, 0.5)


def test_noise_is_drawn_anew_for_each_image_and_step():
    torch.manual_seed(0)
    added = [noise(0.3)(torch.zeros(2, 3, 40, 40)) for _ in range(2)]
    assert added[0].std().item() == pytest.approx(0.3, rel=0.05)
    assert (
        abs(torch.corrcoef(torch.stack([one.flatten() for one in (*added[0], added[1][0])]))[0, 1:]).max()
        < 0.1
    )
