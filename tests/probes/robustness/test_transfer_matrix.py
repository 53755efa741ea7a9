"""The transfer matrix on linear networks whose weights are known."""

import pytest
import torch
from attack_callbacks import Linear
from torch import nn

from fulgurite.models.networks import normalised
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.robustness.transfer_matrix import NOISE, transfer_matrix


def networks():
    same, other = Linear(), Linear()
    weight = torch.randn(48, generator=torch.Generator().manual_seed(5))
    other.row.weight.data = torch.stack([weight, -weight])
    return {"one": Linear(), "same": same, "other": other}


def batch(count=40):
    images = 0.5 + 0.02 * torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return images, Linear()(images).argmax(1)


def test_the_same_network_falls_as_the_source_and_noise_does_little():
    images, labels = batch()
    found = transfer_matrix(networks(), images, labels, Linf(0.02), pgd)
    assert found.clean()[:2] == [1, 1]
    success = found.success()
    assert success[0][0] == success[0][1] > 0.9
    assert success[1] == success[0]
    assert success[3][0] < success[0][0] / 2
    assert found.interval(0, 0)[0] > found.interval(3, 0)[1]
    # what the other network gets wrong as it is does not count
    count, of = found.counts(0, 2)
    assert of == int((networks()["other"](images).argmax(1) == labels).sum())
    assert count <= of
    again = transfer_matrix(networks(), images, labels, Linf(0.02), pgd, batch_size=7)
    assert torch.equal(again.fooled, found.fooled)


def test_the_table_has_clean_accuracy_sources_and_noise():
    images, labels = batch(6)
    found = transfer_matrix(networks(), images, labels, Linf(0.02), pgd)
    assert [row[0] for row in found.table()] == ["source", "clean accuracy", *networks(), NOISE]
    assert found.table()[2][1] == f"{found.success()[0][0]:.4f}"
    assert NOISE in found.text()


def test_a_target_that_is_never_right_has_no_share_in_words_and_in_numbers():
    images, labels = batch(6)
    found = transfer_matrix({"one": Linear()}, images, 1 - labels, Linf(0.02), pgd)
    assert found.text().count("none right") == 2
    assert "nan" not in found.text()
    # a CSV holds numbers
    assert [row[1] for row in found.table()] == ["one", "0.0000", "nan", "nan"]


def test_no_networks_are_refused():
    with pytest.raises(ValueError, match="no networks"):
        transfer_matrix({}, *batch(2), Linf(0.1), pgd)
    with pytest.raises(ValueError, match="a network called 'random noise', as a row of the table is"):
        transfer_matrix({NOISE: networks().popitem()[1]}, *batch(2), Linf(0.1), pgd)


class Grey(nn.Module):
    """Two logits of grey images."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2, 2)

    def forward(self, images):
        return self.head(self.stem(images).mean((2, 3)))


@pytest.mark.parametrize("network", [Grey(), normalised(Grey(), [0.5], [0.5])], ids=["bare", "normalised"])
def test_a_network_of_other_channels_is_refused_by_its_name(network):
    with pytest.raises(ValueError, match="the network 'grey' takes images of 1 channel, and these have 3"):
        transfer_matrix({"colour": Linear(), "grey": network}, *batch(2), Linf(0.1), pgd)


def test_a_network_of_other_sizes_is_refused_by_its_name():
    images, labels = torch.full((2, 3, 5, 5), 0.5), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="the network 'one': Linear cannot take 3 x 5 x 5: "):
        transfer_matrix({"one": Linear()}, images, labels, Linf(0.1), pgd)
