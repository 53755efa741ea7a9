"""Bars and matrices: how high and how bright they are drawn."""

import pytest
import torch

from fulgurite.probes.bar_plot import bar_plot
from fulgurite.probes.drawing import length
from fulgurite.probes.matrix_plot import matrix_plot


def coloured(pixels: torch.Tensor) -> torch.Tensor:
    """Where the first bars' blue is."""
    return (pixels == torch.tensor([0x4C, 0x9B, 0xE8], dtype=torch.uint8)[:, None, None]).all(0)


def test_a_bar_is_as_high_as_its_value_and_what_is_not_finite_a_gap():
    whole, half, none = (
        coloured(bar_plot(["a"], {"": [value]}, ylabel="y", ymax=1.0, width=20))[:, :60].sum()
        for value in (1.0, 0.5, float("nan"))
    )
    assert float(whole / half) == pytest.approx(2, rel=0.02)
    assert none == 0


def test_bars_have_a_value_for_each_name():
    with pytest.raises(ValueError, match="bars 'x' have 1 values for 2 names"):
        bar_plot(["a", "b"], {"x": [1.0]}, ylabel="y")
    with pytest.raises(ValueError, match="wanted at least one of both"):
        bar_plot([], {}, ylabel="y")


def test_a_matrix_is_brighter_where_it_is_larger():
    pixels = matrix_plot(torch.tensor([[0.0, 1.0]]), ["row"], ["one", "two"], title="").float().mean(0)
    left = 6 + int(length("row"))
    cells = pixels[-59:-21, left + 2 : left + 80]  # above the scale; less the numbers at their middle
    assert cells[:6, :36].mean() < 10 < 200 < cells[:6, 42:].mean()
    with pytest.raises(ValueError, match="1 and 1 names for"):
        matrix_plot(torch.zeros(1, 2), ["row"], ["one"])
