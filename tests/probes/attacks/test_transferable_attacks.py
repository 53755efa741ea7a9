"""Input diversity and ensembles of sources."""

from functools import partial

import pytest
import torch
from attack_callbacks import Linear
from torch import nn

from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.attacks.transferable_attacks import Diverse, Ensemble, diverse


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = list[torch.Tensor]()

    def forward(self, images):
        self.seen.append(images.detach())
        return images.flatten(1)[:, :3]


def test_each_pass_is_at_another_size_and_place_and_every_attack_begins_anew():
    images = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    keeps = Keeps()
    network = Diverse(keeps, smallest=0.5, probability=1.0)
    for _ in range(8):
        assert network(images).shape == (2, 3)
    sides = [int((one[0, 0].sum(0) > 0).sum()) for one in keeps.seen]
    assert all(one.shape == images.shape for one in keeps.seen)
    assert 10 <= min(sides) < max(sides) <= 20
    assert len({tuple((one[0, 0] > 0).flatten().tolist()) for one in keeps.seen}) > 5
    again = Diverse(Keeps(), smallest=0.5, probability=1.0)
    assert torch.equal(again(images), keeps.seen[0].flatten(1)[:, :3])
    assert torch.equal(Diverse(Keeps(), probability=0.0)(images), images.flatten(1)[:, :3])


def test_a_diverse_attack_of_an_image_does_not_depend_on_the_others():
    images = 0.5 + 0.02 * torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    labels, attack = Linear()(images).argmax(1), diverse(partial(pgd, steps=6), smallest=0.5, probability=1.0)
    moved = attack(Linear(), images, labels, Linf(0.05))
    assert Linf(0.05).distance(moved, images).max() <= 0.05 + 1e-6
    assert not torch.equal(moved, pgd(Linear(), images, labels, Linf(0.05), steps=6))
    torch.testing.assert_close(attack(Linear(), images[4:], labels[4:], Linf(0.05)), moved[4:])


def test_an_ensemble_answers_with_mean_logits():
    images, other = torch.rand(3, 3, 4, 4), Linear()
    other.row.weight.data = other.row.weight.data.flip(1)
    torch.testing.assert_close(Ensemble([Linear(), other])(images), (Linear()(images) + other(images)) / 2)
    with pytest.raises(ValueError, match="no networks"):
        Ensemble([])
    with pytest.raises(ValueError, match="smallest=0"):
        Diverse(Linear(), smallest=0)
