from itertools import pairwise

import pytest
import torch

from fulgurite.probes.charts import colour
from fulgurite.probes.plot import plot, ticks
from fulgurite.probes.render import LINE

TOP = LINE + 4  # of the field


def where(pixels: torch.Tensor, name: str) -> torch.Tensor:
    """Rows and columns of the pixels of a colour."""
    rgb = torch.tensor([int(name[i : i + 2], 16) for i in (1, 3, 5)], dtype=torch.uint8)
    return (pixels == rgb[:, None, None]).all(0).nonzero()


def drawn(line, **how) -> torch.Tensor:
    return plot({"": line}, across="radius", up="accuracy", size=(200, 100), **how)


@pytest.mark.parametrize("end", [1, 0.3, 8 / 255, 255, 3e-5, 1e-20, 7.3, 1.41, 9.99, 2])
def test_ticks_are_few_and_round(end):
    stops = ticks(end)
    assert stops[0] == 0
    assert 3 <= len(stops) <= 8
    assert end * 0.7 < stops[-1] <= end * (1 + 1e-9)
    steps = {f"{b - a:.6e}" for a, b in pairwise(stops)}
    assert len(steps) == 1
    assert steps.pop()[0] in "125"


def test_a_point_is_a_dot_at_its_place():
    pixels = drawn([(0.5, 0.25)], top=1.0)
    dot = where(pixels, colour(0))
    dot = dot[dot[:, 0] > TOP + 30].float()  # the legend is above
    rows, columns = dot.mean(0).tolist()
    left = pixels.shape[2] - 200 - 16
    assert rows == pytest.approx(TOP + 75, abs=2)
    # the one point is where the axis ends
    assert columns == pytest.approx(left + 200, abs=4)


def test_a_falling_line_falls():
    pixels = drawn([(0, 1), (1, 0)], top=1.0)
    line = where(pixels, colour(0))
    line = line[line[:, 1] < pixels.shape[2] - 60]
    left = [line[line[:, 1] == column][:, 0].float().mean() for column in line[:, 1].unique().tolist()]
    assert all(a <= b + 1 for a, b in pairwise(left))


def test_every_line_has_its_colour_and_its_name_a_dot():
    pixels = plot({"a": [(0, 1), (1, 0)], "b": [(1, 0.5)]}, across="", up="")
    assert all(len(where(pixels, colour(k))) > 20 for k in (0, 1))
    assert not len(where(pixels, colour(2)))


def test_a_mark_is_an_upright_line():
    plain, marked = (drawn([(0, 1), (1, 0)], mark=mark) for mark in (None, 0.5))
    columns = (plain != marked).any(0).nonzero()[:, 1]
    assert 1 <= columns.max() - columns.min() + 1 <= 3


@pytest.mark.parametrize("line", [[(0, 0)], [(0, 0), (0, 1)], [(0, 1), (1e-30, 1)], [(0, 0), (3e7, 5e9)]])
def test_any_points_have_a_picture(line):
    pixels = drawn(line)
    assert pixels.dtype == torch.uint8
    assert pixels.shape[1] == 100 + 4 * LINE


@pytest.mark.parametrize("line", [[], [(-1, 0)], [(0, float("nan"))], [(float("inf"), 1)]])
def test_what_is_no_point_is_refused(line):
    with pytest.raises(ValueError, match="wanted at least one, all finite and at least 0"):
        drawn(line)
