"""Strongest images along units and random directions: known results for codes made by hand."""

import pytest
import torch

from fulgurite.probes.representation.directions import strongest_along
from fulgurite.probes.representation.render_directions import purity_text, render_directions, shown_along


def test_the_strongest_images_are_those_of_the_largest_values():
    torch.manual_seed(0)
    codes = torch.randn(20, 6)
    found = strongest_along(codes, k=3, directions=4)
    for unit in range(6):
        order = sorted(range(20), key=lambda place: -float(codes[place, unit]))[:3]
        assert found.units.places[unit].tolist() == order
        torch.testing.assert_close(found.units.values[unit], codes[order, unit])
    assert found.random.places.shape == (4, 3)
    again, other = (strongest_along(codes, k=3, directions=4, seed=seed) for seed in (0, 1))
    assert torch.equal(again.random.places, found.random.places)
    assert not torch.equal(other.random.values, found.random.values)
    # of a direction of length 1, no response is longer than the code
    assert bool((found.random.values <= codes.norm(dim=1)[found.random.places]).all())


def test_class_units_are_purer_than_directions_and_these_than_chance():
    labels = torch.arange(200) % 8
    drawn = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    codes = 2.0 * torch.nn.functional.one_hot(labels, 8) + drawn / 2
    found = strongest_along(codes, k=5, directions=40).purities(labels)
    units, random, chance = found.values()
    assert (units.mean, units.error, units.units) == (1, 0, 8)
    assert 1 > random.mean > chance.mean + 0.1
    assert random.error > 0
    assert random.units == chance.units == 40
    # turned, units are directions like any other
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0))).Q
    assert strongest_along(codes @ turn, k=5).purities(labels)["units"].mean < 1


def test_silent_units_are_left_out_of_the_mean_and_named_on_the_picture():
    codes, labels = torch.zeros(6, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    codes[:3, 1] = torch.tensor([1.0, 2.0, 3.0])
    found = strongest_along(codes, k=3)
    assert found.units.purity(labels).units == 1
    silent = torch.tensor([[0.0, 0.0]] * 3 + [[-1.0, -1.0]])
    assert purity_text(strongest_along(silent, k=2).units.purity(labels[:4])) == "-, all are silent"
    shown = {place: torch.rand(3, 8, 8) for place in shown_along(found, [0, 1])}
    names = [f"{place}.png" for place in range(6)]
    plain = render_directions(found, shown, [0, 1], names, side=32)
    reported = render_directions(found, shown, [0, 1], names, purities=found.purities(labels), side=32)
    assert plain.shape[2] > 2 * 3 * 32
    assert reported.shape[1] > plain.shape[1]


@pytest.mark.parametrize(
    ("codes", "options", "words"),
    [
        (torch.zeros(3, 2), {"k": 4}, "4 strongest of 3 images"),
        (torch.zeros(3, 2), {"k": 1, "directions": 0}, "along 0 directions"),
        (torch.full((3, 2), 0.1), {"k": 1}, "all 3 codes are equal"),
        (torch.tensor([[torch.nan, 1.0], [1.0, 2.0]]), {"k": 1}, "1 of 2 codes hold values that are not"),
    ],
)
def test_what_has_no_strongest_images_is_one_sentence(codes, options, words: str):
    with pytest.raises(ValueError, match=words):
        strongest_along(codes, **options)
