"""GrabCut from saliency maps."""

import random
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import label
from scipy.stats import multivariate_normal
from sklearn.datasets import load_sample_image

from fulgurite.probes.attribution.grabcut import cut_out, grabcut

RED, BLUE = torch.tensor([0.8, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.7])


def blob(height, width, *, middle=(0.5, 0.5), spread=0.15):
    down = torch.arange(height)[:, None] / height - middle[0]
    right = torch.arange(width) / width - middle[1]
    return torch.exp(-(down**2 + right**2) / (2 * spread**2))[None, None]


def disk(height=31, width=40, *, radius=9.0):
    down, right = torch.arange(height)[:, None] - height // 2, torch.arange(width) - width // 2
    return (down**2 + right**2 < radius**2)[None, None]


def painted(masks, figure=RED, background=BLUE):
    return torch.where(masks, figure.view(1, -1, 1, 1), background.view(1, -1, 1, 1))


def noisy(masks, seed=0, spread=0.12):
    noise = torch.randn(*masks.shape[2:], generator=torch.Generator().manual_seed(seed))
    return (painted(masks, torch.tensor([0.65]), torch.tensor([0.35])) + spread * noise).clamp(0, 1)


def flower(side=96):
    pixels = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)[None] / 255
    return F.interpolate(pixels, (side * 2 // 3, side), mode="area")


def overlap(mask, other):
    return float((mask & other).sum() / (mask | other).sum())


@pytest.mark.parametrize("size", [(31, 40), (8, 9), (64, 33)])
@pytest.mark.parametrize("colours", [(RED, BLUE), (RED[:1], BLUE[:1])], ids=["colour", "grey"])
def test_an_object_of_another_colour_is_cut_out_exactly(size, colours):
    masks = disk(*size, radius=min(size) / 3)
    assert torch.equal(grabcut(painted(masks, *colours), blob(*size)), masks)


def test_seeds_that_lie_on_the_other_side_are_overruled():
    masks = disk()
    maps = blob(31, 40)
    maps[..., 0, :3] = 2
    maps[..., 15, 20] = 0
    assert torch.equal(grabcut(painted(masks), maps), masks)


def test_smoothness_removes_isolated_noise():
    masks = disk()
    images, maps = noisy(masks), blob(31, 40)
    rough, smooth = (grabcut(images, maps, smoothness=smoothness) for smoothness in (0, 5))
    assert overlap(smooth, masks) > 0.95 > 0.9 > overlap(rough, masks)
    assert label(~smooth[0, 0])[1] == 1 < label(~rough[0, 0])[1]


def smallest_energy(image, values, smoothness):
    """The best of all masks, for one Gaussian a side, written from the paper."""
    colours = image.double().flatten(1).T.numpy()
    sides = [values >= np.quantile(values, 0.7), values <= np.quantile(values, 0.3)]
    costs = []
    for chosen in (side.ravel() for side in sides):
        spread = np.cov(colours[chosen].T, bias=True) + np.eye(3) / 255**2
        costs.append(-multivariate_normal(colours[chosen].mean(0), spread).logpdf(colours))
    places = list(product(range(values.shape[0]), range(values.shape[1])))
    pairs = [(a, b) for a, b in product(places, places) if a < b and max(abs(np.subtract(a, b))) == 1]
    index = {place: i for i, place in enumerate(places)}
    contrast = [((colours[index[a]] - colours[index[b]]) ** 2).sum() for a, b in pairs]
    masks = np.array(list(product([False, True], repeat=len(places))))
    energies = np.where(masks, *costs).sum(1)
    for (a, b), difference in zip(pairs, contrast, strict=True):
        link = np.exp(-difference / (2 * np.mean(contrast))) / np.linalg.norm(np.subtract(a, b))
        energies += smoothness * link * (masks[:, index[a]] != masks[:, index[b]])
    return masks[energies.argmin()].reshape(values.shape)


@pytest.mark.parametrize("smoothness", [0.0, 0.5, 3.0, 50.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_mask_has_the_smallest_energy_of_all(smoothness, seed):
    generator = torch.Generator().manual_seed(seed)
    image, values = torch.rand(3, 3, 4, generator=generator), torch.rand(3, 4, generator=generator)
    best = smallest_energy(image, values.numpy(), smoothness)
    parts, count = label(best, np.ones((3, 3)))
    best = parts == 1 + np.bincount(parts.ravel())[1:].argmax() if count else best
    seeds = {"foreground": 0.7, "background": 0.3, "components": 1, "rounds": 1}
    ours = grabcut(image[None], values[None, None], smoothness=smoothness, **seeds)
    assert np.array_equal(ours[0, 0].numpy(), best)


@pytest.mark.slow
@pytest.mark.parametrize("quantile", [0.7, 0.9])
def test_opencv_cuts_a_photograph_the_same_from_the_same_start(quantile):
    cv2 = pytest.importorskip("cv2")
    images, maps = flower(192), blob(128, 192, middle=(0.47, 0.57))
    ours = grabcut(images, maps, foreground=quantile, background=quantile)
    start = (maps > maps.double().quantile(quantile))[0, 0].numpy()
    theirs = np.where(start, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    pixels = (images[0] * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    cv2.setRNGSeed(0)
    cv2.grabCut(pixels, theirs, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    parts = label(theirs == cv2.GC_PR_FGD)[0]
    assert overlap(ours[0, 0], torch.tensor(parts == 1 + np.bincount(parts.ravel())[1:].argmax())) > 0.98


def test_of_two_objects_the_larger_is_kept():
    masks = disk()
    both = masks.clone()
    both[..., :4, :4] = True
    assert torch.equal(grabcut(painted(both), blob(31, 40)), masks)


def test_negative_evidence_counts_as_none():
    masks, maps = disk(), blob(31, 40) - 0.3
    maps[..., :5] = -9
    images = noisy(masks)
    assert torch.equal(grabcut(images, maps), grabcut(images, maps.clamp(min=0)))


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.98])
def test_a_map_of_two_values_seeds_with_both(share):
    masks, maps = disk(), blob(31, 40)
    assert torch.equal(grabcut(painted(masks), (maps >= maps.quantile(1 - share)).float()), masks)


def test_a_single_pixel_may_seed_the_object():
    masks, maps = disk(), torch.zeros(1, 1, 31, 40)
    maps[..., 15, 20] = 1
    assert torch.equal(grabcut(painted(masks), maps), masks)


def test_a_plain_image_holds_no_object():
    assert not grabcut(torch.full((1, 3, 9, 12), 0.4), blob(9, 12)).any()


def test_a_large_image_is_cut_on_a_shrunken_copy():
    masks = disk(350, 601, radius=120)
    mask = grabcut(painted(masks), blob(350, 601))
    assert mask.shape == masks.shape
    assert overlap(mask, masks) > 0.97


def test_an_images_mask_does_not_depend_on_its_batch():
    masks = torch.cat([disk(), disk(radius=5), disk(radius=12)])
    images, maps = (
        torch.cat([noisy(m[None], i) for i, m in enumerate(masks)]),
        blob(31, 40).repeat(3, 1, 1, 1),
    )
    together = grabcut(images, maps)
    for i in range(3):
        assert torch.equal(together[i : i + 1], grabcut(images[i : i + 1], maps[i : i + 1]))
    assert grabcut(images[:0], maps[:0]).shape == (0, 1, 31, 40)


def test_a_mask_is_the_same_at_each_call_and_leaves_the_random_states():
    def states():
        return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]  # noqa: NPY002

    images, maps, before = flower(), blob(64, 96, middle=(0.47, 0.57)), states()
    first = grabcut(images, maps)
    assert torch.equal(first, grabcut(images, maps))
    assert states() == before


def test_gradients_and_precisions_do_not_matter():
    masks = disk()
    images, maps = painted(masks).requires_grad_(), blob(31, 40).requires_grad_()
    with torch.inference_mode():
        assert torch.equal(grabcut(images * 1, maps * 1), masks)
    assert torch.equal(grabcut(images, maps), masks)
    assert torch.equal(grabcut(images.bfloat16(), maps.half()), masks)


def test_a_cut_out_lies_on_plain_background():
    masks, images = disk(), torch.rand(1, 3, 31, 40)
    cut = cut_out(images, masks, background=0.5)
    assert torch.equal(cut[masks.expand_as(cut)], images[masks.expand_as(cut)])
    assert (cut[~masks.expand_as(cut)] == 0.5).all()
    assert (cut_out(images, ~masks)[masks.expand_as(cut)] == 1).all()


@pytest.mark.parametrize(
    ("maps", "complaint"),
    [
        (torch.zeros(1, 1, 31, 40), "map 0 marks no object: its positive part is 0 everywhere"),
        (torch.full((1, 1, 31, 40), 3.0), "its positive part is 3 everywhere"),
        (-blob(31, 40), "absolute values"),
        (blob(31, 40).log() * torch.inf, "wanted finite numbers, got others in map 0"),
    ],
)
def test_a_map_that_marks_nothing_is_refused(maps, complaint):
    with pytest.raises(ValueError, match=complaint):
        grabcut(painted(disk()), maps)


def test_an_image_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="in image 0"):
        grabcut(painted(disk()) * torch.nan, blob(31, 40))


@pytest.mark.parametrize(
    "wrong", [{"foreground": 0.2}, {"background": -0.1}, {"components": 0}, {"rounds": 0}, {"smoothness": -1}]
)
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        grabcut(painted(disk()), blob(31, 40), **wrong)
