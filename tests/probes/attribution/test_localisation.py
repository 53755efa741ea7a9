"""Pointing game and energy inside masks."""

import pytest
import torch
from torch.testing import assert_close

from fulgurite.probes.attribution.localisation import energy_inside, pointing_game

MASKS = torch.zeros(2, 6, 6, dtype=torch.bool)
MASKS[0, 1:3, 1:3] = MASKS[1, 4:, :] = True


def test_the_pointing_game_checks_the_largest_value():
    maps = torch.zeros(2, 1, 6, 6)
    maps[0, 0, 2, 1] = maps[1, 0, 0, 0] = 1
    assert pointing_game(maps, MASKS).tolist() == [1, 0]
    maps[0, 0, 5, 5] = 2
    assert pointing_game(maps, MASKS).tolist() == [0, 0]


def test_of_equal_values_the_share_inside_counts():
    maps = torch.zeros(2, 1, 6, 6)
    maps[0, 0, 2, 0:4] = 1  # two of the four lie inside
    assert_close(pointing_game(maps, MASKS), torch.tensor([0.5, 12 / 36]))


def test_a_tolerance_widens_the_mask_in_every_direction():
    maps = torch.zeros(2, 1, 6, 6)
    maps[0, 0, 4, 4] = 1  # two pixels right of and two below the mask's corner
    maps[1, 0, 2, 3] = 1  # two above
    assert pointing_game(maps, MASKS, tolerance=2).tolist() == [0, 1]
    assert pointing_game(maps, MASKS, tolerance=2.9).tolist() == [1, 1]
    assert pointing_game(maps, MASKS, tolerance=1.9).tolist() == [0, 0]


def test_energy_is_the_positive_share_inside():
    maps = torch.zeros(2, 1, 6, 6)
    maps[0, 0, 1, 1], maps[0, 0, 0, 0], maps[0, 0, 2, 2] = 3e-30, 1e-30, -9e-30
    maps[1] = 1
    assert_close(energy_inside(maps, MASKS), torch.tensor([0.75, 12 / 36]))


def test_an_empty_mask_and_an_empty_map_have_no_answer():
    maps = -torch.ones(2, 1, 6, 6)
    maps[0, 0, 0, 0] = 1
    empty = torch.zeros_like(MASKS)
    assert pointing_game(maps, empty).isnan().all()
    assert pointing_game(maps, empty, tolerance=2).isnan().all()
    assert energy_inside(maps, empty).isnan().all()
    assert energy_inside(maps, MASKS).isnan().tolist() == [False, True]


@pytest.mark.parametrize("measure", [pointing_game, energy_inside])
def test_masks_of_another_size_are_reported_in_a_sentence(measure):
    with pytest.raises(
        ValueError, match=r"masks of \(2, 6, 6\) for maps of \(2, 1, 3, 6\); wanted .*\(2, 3, 6\)"
    ):
        measure(torch.zeros(2, 1, 3, 6), MASKS)
