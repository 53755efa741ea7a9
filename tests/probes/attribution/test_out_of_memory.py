"""Attribution where memory runs out."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attribution.cam import score_cam
from fulgurite.probes.attribution.faithfulness import curve
from fulgurite.probes.attribution.lime import lime
from fulgurite.probes.attribution.occlusion import occlusion
from fulgurite.probes.attribution.path_gradients import integrated_gradients, smoothgrad
from fulgurite.probes.attribution.rise import rise
from fulgurite.probes.objectives import class_score

SIZES = []  # not the network's own: what it holds is put back after each loan
IMAGES = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0))


class Narrow(nn.Module):
    """A convolutional network that memory holds no more than three images of."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
        self.body, self.room = nn.Sequential(*layers), 1000

    def forward(self, images):
        SIZES.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.body(images)


def deleted(network, images, objective):
    return curve(network, images, objective, images.mean(1, keepdim=True))


METHODS = [smoothgrad, integrated_gradients, occlusion, rise, lime, score_cam, deleted]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_where_memory_runs_out_copies_are_looked_at_a_few_at_a_time(method):
    network = Narrow()
    expected = method(network, IMAGES, class_score(1))
    network.room = 3
    SIZES.clear()
    with pytest.warns(RuntimeWarning, match="out of memory with") as reported:
        found = method(network, IMAGES, class_score(1))
    assert len(reported) == 1
    assert_close(found, expected)
    assert 1 <= sum(size > 3 for size in SIZES) <= 4
    assert SIZES[-1] <= 3
