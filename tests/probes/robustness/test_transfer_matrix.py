"""The transfer matrix on linear networks whose weights are known."""

import pytest
import torch
from attack_callbacks import Linear

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


def test_no_networks_are_refused():
    with pytest.raises(ValueError, match="no networks"):
        transfer_matrix({}, *batch(2), Linf(0.1), pgd)
    with pytest.raises(ValueError, match="a network called 'random noise', as a row of the table is"):
        transfer_matrix({NOISE: networks().popitem()[1]}, *batch(2), Linf(0.1), pgd)
