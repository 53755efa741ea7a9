"""Error consistency: the published counts, and the ends of the scale."""

import math

import pytest
import torch

from fulgurite.probes.representation.error_consistency import Agreement, agreement


def test_human_and_googlenet_on_1500_images_of_ilsvrc():
    """The counts of the CS231n lecture: both right on 1352, GoogLeNet alone on 72, the human alone on 46."""
    found = Agreement(both=1352, one=72, other=46, none=30)
    assert found.count == 1500
    assert found.consistency == pytest.approx(0.296, abs=5e-4)
    assert found.p == pytest.approx(0.0207, abs=5e-4)


def test_the_same_errors_are_consistent_and_independent_ones_are_not():
    right = torch.tensor([True, True, False, True, False, False])
    assert agreement(right, right).consistency == 1
    one = torch.tensor([True, True, False, False])
    assert agreement(one, torch.tensor([True, False, True, False])) == Agreement(1, 1, 1, 1)
    assert agreement(one, torch.tensor([True, False, True, False])).consistency == 0
    assert agreement(right, ~right).consistency == -1
    always = agreement(torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool))
    assert math.isnan(always.consistency)
    assert always.p == 1
    with pytest.raises(ValueError, match="no images"):
        agreement(right[:0], right[:0])
