"""Shape bias at each epoch, of networks made by hand."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fulgurite.callbacks.framework.sample import CHUNK, Sample
from fulgurite.callbacks.shape_bias import ShapeBias

CLASSES = ("red", "green", "blue")


class Middle(nn.Module):
    """Answers by the colour in the middle, which is the shape here."""

    def forward(self, images):
        return images[:, :, 2:4, 2:4].mean((2, 3))


class Edge(nn.Module):
    """Answers by the colour of the corner, which is the texture here."""

    def forward(self, images):
        return images[:, :, :2, :2].mean((2, 3))


def conflicts(count: int) -> TensorDataset:
    shapes = torch.arange(count) % 3
    textures = (shapes + 1 + torch.arange(count) // 3 % 2) % 3
    images, places = torch.zeros(count, 3, 6, 6), torch.arange(count)
    images[places, textures] = 0.5
    images[:, :, 2:4, 2:4] = 0
    images[places, shapes, 2:4, 2:4] = 0.5
    data = TensorDataset(images, shapes)
    data.cue_labels = lambda ids: textures[list(ids)]
    return data


def looked(network: nn.Module, data: TensorDataset) -> dict:
    probe, sample = ShapeBias(data, images=None), Sample(*conflicts(4).tensors, CLASSES, torch.device("cpu"))
    probe.check(network, sample)
    subjects = probe.subjects(network, sample)
    seen = {
        name: own
        for part in (subjects[::2], subjects[1::2])
        for name, own in probe.observe(network, sample, part).items()
    }
    return dict(probe.compose(seen, sample))


@pytest.mark.parametrize(("network", "bias"), [(Middle(), 1.0), (Edge(), 0.0)])
def test_a_network_that_sees_the_shape_alone_has_a_bias_of_one_and_of_the_texture_alone_zero(network, bias):
    seen = looked(network, conflicts(CHUNK + 5))
    for name in ("shape bias", "lowest", "highest"):
        assert seen[name].value == bias
    assert seen["hit rate"].value == 1


class Neither(nn.Module):
    """Answers what is neither."""

    def forward(self, images):
        return -Middle()(images) - Edge()(images)


def test_without_predictions_by_shape_or_texture_there_is_no_bias():
    assert {name for name in looked(Neither(), conflicts(7)) if name} == {"hit rate"}


def test_data_that_are_no_conflicts_are_refused():
    with pytest.raises(ValueError, match="TensorDataset does not say which class a texture is of"):
        ShapeBias(TensorDataset(torch.rand(2, 3, 6, 6), torch.tensor([0, 1])))
    same = conflicts(6)
    same.cue_labels = lambda ids: same.tensors[1][list(ids)]
    with pytest.raises(ValueError, match="1 image whose shape and texture are of one class"):
        looked(Middle(), same)
