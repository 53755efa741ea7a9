"""Parallel restarts: fewer passes, with the results of sequential ones."""

from functools import partial
from math import nan

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fulgurite.probes.attacks.apgd import apgd
from fulgurite.probes.attacks.fab import fab
from fulgurite.probes.attacks.gradient import pgd
from fulgurite.probes.attacks.restarts import Copies, RestartBatches
from fulgurite.probes.attacks.threat import L1, L2, Linf

ATTACKS = {
    "PGD, dropping": partial(pgd, steps=6, restarts=5, drop=True),
    "PGD, to the end": partial(pgd, steps=6, restarts=5, momentum=0.5),
    "APGD": partial(apgd, steps=8, restarts=4),
    "APGD, to the end": partial(apgd, steps=8, restarts=4, drop=False),
    "APGD-T": partial(apgd, steps=8, target_classes=4, restarts=2, loss="dlr"),
    "FAB-T": partial(fab, steps=6, target_classes=4, restarts=2),
    "FAB-T, to the end": partial(fab, steps=6, target_classes=4, drop=False),
}


def wavy() -> nn.Sequential:
    """A network on whose slopes starts matter."""
    layers = nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Flatten()
    network = nn.Sequential(*layers, nn.Linear(800, 6)).requires_grad_(False)
    network[0].weight *= 6
    network[2].weight *= 6
    return network


@pytest.mark.parametrize("threat", [Linf(0.008), L2(0.08), L1(0.3)], ids=repr)
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_they_find_what_they_find_in_turn(attack, threat):
    torch.manual_seed(0)
    network, images, sizes = wavy(), torch.rand(16, 1, 12, 12), []
    network[-1].bias -= network(images).mean(0)
    labels = network(images).argmax(1)
    network.register_forward_hook(lambda module, inputs, out: sizes.append(len(out)))
    found, passes, largest = [], [], []
    for at_once in (1, 64):
        sizes.clear()
        found.append(attack(network, images, labels, threat, at_once=at_once))
        passes.append(len(sizes))
        largest.append(max(sizes))
    # a gradient of about 0 may have another sign where a batch of another size rounds it
    assert ((found[0] - found[1]).abs() > 2e-3).float().mean() < 0.005
    assert largest[0] == 16 < largest[1] <= 64
    assert passes[1] < passes[0]
    fell = [network(moved).argmax(1) != labels for moved in found]
    assert torch.equal(*fell)
    assert fell[0].any()
    assert not fell[0].all()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_generator_is_left_the_same_and_what_is_found_too(attack):
    torch.manual_seed(0)
    network, images = wavy(), torch.rand(8, 1, 12, 12)
    labels = network(images).argmax(1)
    found, left = [], []
    for at_once in (1, 64):
        generator = torch.Generator().manual_seed(5)
        found.append(attack(network, images, labels, Linf(0.05), at_once=at_once, generator=generator))
        left.append(torch.rand(1, generator=generator))
    assert_close(found[0], found[1], rtol=0, atol=2e-3)
    assert torch.equal(*left)
    assert not torch.equal(left[0], torch.rand(1, generator=torch.Generator().manual_seed(5)))


class Pitted(nn.Module):
    """Separates bright images from dark ones in five ways, and outputs NaN where one pixel is below .49."""

    def forward(self, images):
        means = images.mean((1, 2, 3)) + images[:, 0, 0, 0] * torch.where(images[:, 0, 0, 0] < 0.49, nan, 0)
        return torch.stack([4 * means, means, 0.3 * means, -means, -2 * means], 1)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_moved_image_with_nan_logits_counts_as_misclassified(attack):
    images, network = torch.full((4, 1, 6, 6), 0.7), Pitted()
    images[:2, 0, 0, 0] = 0.5
    images[2:] = 0.9
    with pytest.raises(ValueError, match="NaN for 1 of 1 image;"):
        attack(network, torch.full((1, 1, 6, 6), 0.4), torch.tensor([0]), Linf(0.02))
    for at_once in (1, 64):
        moved = attack(network, images, torch.zeros(4, dtype=torch.long), Linf(0.02), at_once=at_once)
        assert network(moved).isnan().any(1).tolist() == [True, True, False, False]


def test_an_earlier_restart_continues_when_a_later_one_has_succeeded():
    copies = Copies(torch.tensor([4, 7, 9]), 3)
    assert copies.rows.tolist() == [4, 7, 9] * 3
    won = torch.zeros(9, dtype=torch.bool)
    won[[4, 2]] = True  # image 7 by the second try, image 9 by the first
    assert copies.useful(won).tolist() == [True, True, False, True, False, False, True, False, False]
    assert copies.rows.tolist() == [4, 7, 4, 4]
    assert copies.places.tolist() == [0, 1, 3, 6]
    won = torch.tensor([False, True, False, False])  # and by the first after all
    assert copies.useful(won).tolist() == [True, False, True, True]


def test_as_many_restarts_as_fit_but_always_one():
    turns = RestartBatches(range(7), 10)
    assert [list(turns.next(left)) for left in (20, 4, 4, 3)] == [[0], [1, 2], [3, 4], [5, 6]]
    assert not turns.next(3)
    assert not RestartBatches(range(7), 10).next(0)
