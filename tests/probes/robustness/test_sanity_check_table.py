"""Sanity checks as a table, and the limits that they state."""

import math

import pytest
import torch
from torch import nn

from fulgurite.probes.attacks.threat import Linf
from fulgurite.probes.robustness.check_attacks import Case
from fulgurite.probes.robustness.gradient_masking import CHECKS, HEAD, Check, rows, table


class Flat(nn.Module):
    """Of this many images, evenly bright ones, the first have no gradient."""

    def __init__(self, flat):
        super().__init__()
        self.flat = flat

    def forward(self, images):
        level = images.flatten(1).mean(1)
        lead = torch.where(torch.arange(len(level)) < self.flat, 0 * level + 1, 1 - level)
        return torch.stack([lead, -lead], 1)


@pytest.mark.parametrize(
    ("count", "flat", "passed", "limit"),
    [
        (16, 1, True, "honest: up to one image"),
        (16, 2, False, "honest: up to one image"),
        (10, 1, False, "honest: none of so few"),
        (100, 2, True, "honest: up to 2.0 %"),
        (100, 3, False, "honest: up to 2.0 %"),
    ],
)
def test_a_check_states_its_limit(count, flat, passed, limit):
    images = torch.linspace(0.4, 0.6, count)[:, None, None, None].expand(-1, 1, 8, 8)
    case = Case(Flat(flat), images, torch.zeros(count, dtype=torch.long), Linf(0.1), 10, None)
    _, found, says = CHECKS["zero or non-finite gradients"](case)
    assert found == passed
    assert limit in says
    assert says.startswith(f"{flat} of the {count} images ({100 * flat / count:.1f} %)")


def test_checks_read_as_a_table():
    checks = [Check("one", 0.0123456, True, "fine"), Check("the other", math.nan, False, "not so")]
    assert rows(checks) == [["one", "0.01235", "pass", "fine"], ["the other", "nan", "FAIL", "not so"]]
    assert table(checks).splitlines() == [
        "check      figure   verdict  what it says",
        "one        0.01235  pass     fine",
        "the other  nan      FAIL     not so",
    ]
    assert len(HEAD) == 4
