"""LIME: linear models over superpixels."""

import inspect
from itertools import product

import numpy as np
import pytest
import torch
from outside import Outside
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.lime import lime, strongest_regions, superpixels
from fulgurite.probes.attribution.perturbations import filling
from fulgurite.probes.feature_objectives import energy
from fulgurite.probes.objectives import channel, class_score, log_probability
from fulgurite.probes.task_objectives import output

IMAGES = torch.rand(3, 2, 6, 7, generator=torch.Generator().manual_seed(0))

# 6, 9 and 4 regions
REGIONS = torch.stack(
    [
        torch.arange(6)[:, None] // down * -(-7 // across) + torch.arange(7) // across
        for down, across in [(2, 4), (2, 3), (3, 4)]
    ]
)
RED, BLUE = torch.tensor([0.8, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.7])


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(84, 3))


def curved() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(80, 3)
    ).train()


def two_colours(height=32, width=40, *, edge=17, left=RED, right=BLUE):
    return torch.where(torch.arange(width) < edge, left[:, None, None], right[:, None, None]).expand(
        1, -1, height, -1
    )


def per_region(values, regions):
    """What each region's pixels add up to, in the order of the regions."""
    return torch.stack([values[regions == place].sum() for place in range(int(regions.max()) + 1)])


@pytest.mark.parametrize("strength", [0, 1e-6])
@pytest.mark.parametrize("fill", ["grey", "mean", 0.2])
def test_a_linear_networks_regions_weigh_what_their_pixels_add(strength, fill):
    network, classes = linear(), torch.tensor([2, 0, 1])
    maps = lime(
        network, IMAGES, class_score(classes), segments=REGIONS, samples=100, strength=strength, fill=fill
    )
    added = network[1].weight[classes].view_as(IMAGES) * (IMAGES - filling(IMAGES, fill))
    for ours, image, regions in zip(maps, added.sum(1), REGIONS, strict=True):
        assert_close(ours[0], per_region(image, regions)[regions], atol=1e-5, rtol=1e-4)


class Watched(nn.Module):
    """A network, and which regions of a one-channel image it was shown."""

    sets, scores = Outside(list), Outside(list)

    def __init__(self, network, image, regions):
        super().__init__()
        self.network, self.image, self.regions = network, image, regions

    def forward(self, altered):
        visible = altered[:, 0] == self.image[0]
        for each in visible:
            self.sets.append([bool(each[self.regions == place].all()) for place in self.regions.unique()])
        self.scores += (out := self.network(altered))[:, 0].tolist()
        return out


def watched(width=5, height=4):
    torch.manual_seed(1)
    image = torch.rand(1, height, width)
    regions = torch.arange(height)[:, None] // 2 * 3 + torch.arange(width) // 2
    network = nn.Sequential(nn.Flatten(), nn.Linear(height * width, 8), nn.Tanh(), nn.Linear(8, 1))
    return Watched(network, image, regions), image[None], regions


@pytest.mark.parametrize(("width", "strength"), [(0.25, 1.0), (0.1, 0.01), (2.0, 30.0)])
def test_the_weights_are_those_of_the_papers_regression(width, strength):
    network, image, regions = watched()
    maps = lime(network, image, output(0), segments=regions[None], samples=60, width=width, strength=strength)
    sets, scores = np.array(network.sets, dtype=float), np.array(network.scores)
    assert len(sets) == 60
    assert sets[0].all()
    lengths = np.linalg.norm(sets, axis=1) * np.sqrt(6)
    cosine = np.divide(sets.sum(1), lengths, out=np.zeros(60), where=lengths > 0)
    near = np.sqrt(np.exp(-((1 - cosine) ** 2) / width**2))
    # the normal equations of the weighted squares, the constant not held small
    table = np.hstack([sets, np.ones((60, 1))])
    normal = table.T @ (near[:, None] * table) + strength * np.diag([1.0] * 6 + [0.0])
    weights = np.linalg.solve(normal, table.T @ (near * scores))
    assert_close(maps[0, 0], torch.tensor(weights[:6]).float()[regions], atol=1e-6, rtol=1e-4)


def test_each_region_is_seen_half_the_time_and_no_two_go_together():
    network, image, regions = watched()
    lime(network, image, output(0), segments=regions[None], samples=2000)
    sets = np.array(network.sets, dtype=float)
    # of 2000 throws the spread is 0.011 and 0.022; these are four of it
    assert abs(sets.mean(0) - 0.5).max() < 0.045
    assert abs(np.corrcoef(sets.T) - np.eye(6)).max() < 0.09
    assert abs(np.corrcoef(sets[:-1, 0], sets[1:, 0])[0, 1]) < 0.09


def captums_network() -> nn.Sequential:
    """Its BasicModel_MultiLayer: 4 x - 8 for a sum x above 10, 3 x + 2 below."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        network[1].weight.fill_(1)
        network[1].bias.copy_(torch.tensor([-10.0, 1.0, 1.0, 1.0]))
        network[3].weight.fill_(1)
        network[3].bias.copy_(torch.tensor([-1.0, 1.0]))
    return network


@pytest.mark.parametrize(
    ("pixels", "regions", "fill", "published"),
    [
        ([20, 50, 30], [0, 1, 2], 0.0, [73.3716, 193.3349, 113.3349]),
        ([20, 50, 30], [0, 0, 1], 0.0, [271, 271, 111]),
        ([20, 50, 30], [0, 0, 1], 4.0, [244, 244, 100]),
        ([10, 14, 4], [0, 1, 2], 0.0, [32.11, 48, 11]),
    ],
)
def test_the_numbers_that_captum_published_are_found(pixels, regions, fill, published):
    network, image = captums_network(), torch.tensor(pixels).float().view(1, 1, 1, 3)
    map_ = lime(
        network,
        image,
        output(0),
        segments=torch.tensor(regions).view(1, 1, 3),
        samples=4000,
        width=10.0,
        strength=1e-6,
        fill=fill,
    )
    # captum's are a lasso's of alpha 1, which takes 4 off each, one over the variance of a fair coin;
    # its tests allow 1 for the chance of the draw
    assert_close(map_.flatten(), torch.tensor(published) + 4.0, atol=1, rtol=0)
    # of all sets alike, which is what many draws and a wide kernel come to
    sets = torch.tensor(list(product([0.0, 1.0], repeat=max(regions) + 1)))
    veiled = torch.where(sets[:, regions] > 0, image.flatten(), torch.tensor(fill))
    scores = network(veiled.view(-1, 1, 1, 3))[:, 0].detach()
    exact = 4 * ((sets - 0.5) * (scores - scores.mean())[:, None]).mean(0)
    assert_close(map_.flatten(), exact[regions], atol=0.6, rtol=0)


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_captums_lime_agrees_given_the_same_regions_and_sets(captum, strength):
    from captum._utils.models.linear_model import SkLearnRidge

    network, image, regions = watched()
    ours = lime(network, image, output(0), segments=regions[None], samples=60, strength=strength)
    sets = iter(torch.tensor(network.sets).long()[:, None])

    # captum's own kernel compares pixels, where the paper compares sets
    def near(original, altered, seen, **_):
        distance = 1 - torch.cosine_similarity(seen.float(), torch.ones(1, 6))
        return torch.exp(-distance.square() / (2 * 0.25**2))

    made_of = network.network, SkLearnRidge(alpha=strength), near, lambda *_, **__: next(sets)
    asked = {"feature_mask": regions[None, None], "baselines": 0.5, "n_samples": 60}
    theirs = captum("Lime", *made_of, inputs=image, target=0, **asked)
    assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_several_maps_equal_one_call_for_each():
    network = curved()
    objectives = [class_score(torch.tensor([2, 0, 1])), channel("0", 1), 2 * energy("2") - class_score(1)]
    together = lime(network, IMAGES, objectives, segments=REGIONS, samples=40)
    assert together.shape == (3, 3, 1, 6, 7)
    for ours, objective in zip(together, objectives, strict=True):
        alone = lime(network, IMAGES, objective, segments=REGIONS, samples=40)
        assert_close(ours, alone, atol=1e-6, rtol=1e-5)


def test_an_image_is_explained_the_same_in_any_batch_and_in_parts_of_any_size(monkeypatch):
    network, classes = curved(), torch.tensor([2, 0, 1])
    together = lime(network, IMAGES, log_probability(classes), segments=REGIONS, samples=40)
    monkeypatch.setattr("fulgurite.probes.batches.MOST", 7)
    for place in range(3):
        mine = slice(place, place + 1)
        objective = log_probability(int(classes[place]))
        alone = lime(network, IMAGES[mine], objective, segments=REGIONS[mine], samples=40)
        assert_close(together[mine], alone, atol=1e-6, rtol=1e-4)


def test_the_sets_are_chosen_by_the_seed():
    network = curved()
    maps = [lime(network, IMAGES, output(0), samples=20, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])


def test_nothing_is_left_behind():
    network, images = curved(), IMAGES.clone().requires_grad_()
    # of Python's own random state test_borrow speaks: the checker of types draws from it
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    maps = lime(network, images, output(0), samples=10)
    strongest_regions(superpixels(images), maps)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert network.training
    assert not maps.requires_grad
    assert images.grad is None
    assert torch.equal(images, IMAGES)
    assert not any(module._forward_hooks for module in network.modules())


def test_regions_are_weighed_in_inference_mode():
    network = curved()
    expected = lime(network, IMAGES, [output(0), energy("2")], samples=20)
    with torch.inference_mode():
        images = IMAGES * 1
        maps = lime(network, images, [output(0), energy("2")], samples=20)
        strongest_regions(superpixels(images), maps[0])
    assert torch.equal(maps, expected)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 1, 1, 1), (1, 3, 1, 9), (1, 1, 23, 17), (2, 3, 31, 8)])
def test_any_number_of_images_of_any_size_will_do(shape):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    maps = lime(network, images, output(0), samples=10)
    assert maps.shape == (shape[0], 1, *shape[2:])
    assert maps.isfinite().all()


def test_fewer_samples_than_regions_share_what_is_there_to_explain():
    maps = lime(linear(), IMAGES, output(0), segments=REGIONS, samples=2, strength=0)
    assert maps.isfinite().all()
    assert maps.abs().max() < 2


def test_only_an_objective_that_is_no_number_has_no_map():
    network = linear()
    with torch.no_grad():
        network[1].weight[1, 3] = float("nan")
    maps = lime(network, IMAGES, [output(0), class_score(1)], segments=REGIONS, samples=10)
    assert maps[0].isfinite().all()
    assert maps[1].isnan().all()


def test_regions_may_be_numbered_in_any_way():
    network = linear()
    expected = lime(network, IMAGES, output(0), segments=REGIONS, samples=20)
    assert torch.equal(lime(network, IMAGES, output(0), segments=3 * REGIONS - 5, samples=20), expected)


def test_a_colour_that_decides_is_found_where_it_is():
    reddish = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    image = two_colours()
    maps = lime(reddish, image, output(0), segments=20, samples=200)
    assert (maps[..., :17] > 0).all()
    assert (maps[..., 17:] < 0).all()
    masks = strongest_regions(superpixels(image, count=20), maps, count=100)
    assert torch.equal(masks, (torch.arange(40) < 17).expand_as(masks))


def test_regions_of_other_images_are_refused():
    # without the checker of shapes that the tests run under
    with pytest.raises(ValueError, match=r"wanted a region for each pixel, \(3, 6, 7\), got \(2, 6, 7\)"):
        inspect.unwrap(lime)(linear(), IMAGES, output(0), segments=REGIONS[:2])
