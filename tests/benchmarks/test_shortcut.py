"""The shortcut finder against a shortcut that was planted."""

import pytest
import torch

from benchmarks.shortcut import first_by_cue, trained
from fulgurite.models.networks import build


@pytest.mark.slow
def test_the_planted_cue_is_the_first_component_where_it_was_planted():
    assert sum(first_by_cue(trained(0.95, 0, 15, 2000)[0], 0)) >= 5  # of 6 classes


@pytest.mark.figures
def test_a_network_trained_without_a_shortcut_depends_on_no_cue():
    assert sum(first_by_cue(trained(0.0, 0, 15, 2000)[0], 0)) <= 1


def test_an_untrained_network_hangs_on_no_cue():
    torch.manual_seed(0)
    assert sum(first_by_cue(build("all_conv", classes=6).eval(), 0, images=240, held_out=120)) <= 1
