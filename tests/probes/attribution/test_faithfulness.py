import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.faithfulness import area, curve
from fulgurite.probes.objectives import class_score

ONES = torch.ones(1, 1, 2, 2)
WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1])


def weighing(weights: torch.Tensor) -> nn.Sequential:
    network = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), 1, bias=False))
    network[1].weight.data = weights[None].clone()
    return network


def test_the_curves_and_areas_that_torch_cam_publishes():
    told = {"deletion": ([1, 0.3, 0], 0.4), "insertion": ([0, 0.7, 1], 0.6)}
    for way, (expected, under) in told.items():
        found = curve(weighing(WEIGHTS), ONES, class_score(0), WEIGHTS.view(1, 1, 2, 2), mode=way, steps=2)
        assert_close(found, torch.tensor([expected], dtype=torch.float32))
        assert_close(area(found), torch.tensor([under]))


class Largest(nn.Module):
    def forward(self, images):
        return images.flatten(1).amax(1, keepdim=True)


@pytest.mark.parametrize(("way", "rest"), [("deletion", 0.0), ("insertion", 1.0)])
def test_a_network_that_sees_its_brightest_pixel_forgets_it_at_once(way, rest):
    images = torch.zeros(2, 1, 4, 4)
    images[0, 0, 1, 2] = images[1, 0, 3, 0] = 1
    found = curve(Largest(), images, class_score(0), images, mode=way, steps=16)
    assert_close(found[:, 1:], torch.full((2, 16), rest))


def test_a_linear_networks_curves_are_sorted_cumulative_sums():
    weights = torch.randn(36, generator=torch.Generator().manual_seed(0))
    found = curve(
        weighing(weights), torch.ones(1, 1, 6, 6), class_score(0), weights.view(1, 1, 6, 6), steps=36
    )
    gone = torch.cat([torch.zeros(1), weights.sort(descending=True).values.cumsum(0)])
    assert_close(found[0], weights.sum() - gone, rtol=1e-5, atol=1e-5)


def test_random_maps_say_nothing():
    maps = torch.rand(300, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = curve(weighing(WEIGHTS), ONES.expand(300, -1, -1, -1), class_score(0), maps, steps=4)
    assert_close(area(found).mean(), torch.tensor(0.5), rtol=0, atol=0.02)


def test_a_class_for_each_image_and_batch_mates():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    maps, classes = images.mean(1, keepdim=True), torch.tensor([2, 0, 1, 1])
    together = curve(network, images, class_score(classes), maps, steps=3)
    alone = [
        curve(network, images[i : i + 1], class_score(int(classes[i])), maps[i : i + 1], steps=3)
        for i in range(4)
    ]
    assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_wrong_wishes_are_told():
    with pytest.raises(ValueError, match="at least 1 step"):
        curve(weighing(WEIGHTS), ONES, class_score(0), ONES, steps=0)
