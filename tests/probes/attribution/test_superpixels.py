"""Superpixels, and the strongest regions of a map over them."""

import pytest
import torch
from torch import nn

from fulgurite.probes.attribution.lime import lime, strongest_regions, superpixels
from fulgurite.probes.objectives import class_score

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


def two_colours(height=32, width=40, *, edge=17, left=RED, right=BLUE):
    return torch.where(torch.arange(width) < edge, left[:, None, None], right[:, None, None]).expand(
        1, -1, height, -1
    )


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(("size", "edge"), [((32, 40), 17), ((61, 47), 30)])
def test_superpixels_cover_the_image_and_follow_an_edge(channels, size, edge):
    image = two_colours(*size, edge=edge, left=RED[:channels], right=BLUE[:channels])
    labels = superpixels(image, count=20)[0]
    assert torch.equal(labels.unique(), torch.arange(int(labels.max()) + 1))
    assert 10 <= int(labels.max()) + 1 <= 30
    assert not torch.isin(labels[:, :edge], labels[:, edge:]).any()


def test_a_grey_photograph_falls_into_as_many_regions_as_its_colours_would():
    from sklearn.datasets import load_sample_image

    flower = torch.tensor(load_sample_image("flower.jpg"))[::4, ::4].permute(2, 0, 1)[None] / 255
    grey = flower.mean(1, keepdim=True)
    counts = [int(superpixels(image).max()) + 1 for image in (grey, grey.expand(-1, 3, -1, -1), flower)]
    assert abs(counts[0] - counts[1]) <= 8
    assert all(25 <= count <= 60 for count in counts)


def test_superpixels_are_the_same_in_any_batch():
    images = torch.cat([two_colours(), two_colours(edge=9)])
    together = superpixels(images)
    assert torch.equal(together[1:], superpixels(images[1:]))
    assert torch.equal(together, superpixels(images))


def test_the_strongest_regions_are_the_largest_above_zero():
    values = torch.tensor([[3.0, -4, 1, 2, 0, -1, 0, 0, 0], [-1.0, -2, 5, -3, 0, 0, 0, 0, 0]])
    maps = torch.stack([each[regions] for each, regions in zip(values, REGIONS[:2], strict=True)])[:, None]
    masks = strongest_regions(REGIONS[:2], maps, count=2)
    assert torch.equal(masks[0, 0], (REGIONS[0] == 0) | (REGIONS[0] == 3))
    assert torch.equal(masks[1, 0], REGIONS[1] == 2)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"samples": 1}, "samples=1.*wanted at least two samples"),
        ({"width": 0}, "width=0"),
        ({"width": -0.5}, "a width above 0"),
        ({"strength": -1.0}, "strength=-1.0.*no negative strength"),
        ({"segments": 1}, "1 superpixels.*wanted at least two"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        lime(linear(), IMAGES, class_score(0), **wrong)


def test_superpixels_and_strongest_regions_without_meaning_are_refused():
    with pytest.raises(ValueError, match="compactness 0; wanted at least two, of compactness above 0"):
        superpixels(IMAGES, compactness=0)
    with pytest.raises(ValueError, match="count=0; wanted at least one region"):
        strongest_regions(REGIONS, IMAGES[:, :1], count=0)
