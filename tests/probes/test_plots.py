"""Plots, read back: positions, colours and order."""

from itertools import pairwise

import pytest
import torch
from drawn_words import words

from fulgurite.probes.axes import EDGE
from fulgurite.probes.drawing import drawing_of
from fulgurite.probes.plots import category_plot, colour, confusion_matrix, line_plot, scatter_plot, ticks
from fulgurite.probes.render import BACKGROUND, LINE, heat

TOP = LINE + 6  # of the area within the axes
BRIGHT = heat(torch.ones(1, 1), top=1.0)[:, 0, 0]


def rgb(name: str) -> torch.Tensor:
    return torch.tensor([int(name[i : i + 2], 16) for i in (1, 3, 5)], dtype=torch.uint8)


def places(pixels: torch.Tensor, fill: str | torch.Tensor) -> torch.Tensor:
    """Rows and columns of the pixels of a colour."""
    fill = rgb(fill) if isinstance(fill, str) else fill
    return (pixels == fill[:, None, None]).all(0).nonzero()


def drawn(line, **options) -> torch.Tensor:
    return line_plot({"": line}, xlabel="radius", ylabel="accuracy", size=(200, 100), **options)


def test_points_lie_where_they_are_in_the_colour_of_their_class():
    pixels = scatter_plot(torch.tensor([[0.0, 0], [1, 1]]), torch.tensor([0, 1]), ["cat", "dog"], side=100)
    assert torch.equal(pixels[:, 97, 3], rgb(colour(0)))
    assert torch.equal(pixels[:, 3, 97], rgb(colour(1)))
    assert pixels[:, 50, 50].tolist() == list(BACKGROUND)


def test_the_legend_names_the_classes_that_are_there():
    points, labels = torch.rand(4, 2), torch.tensor([0, 0, 2, 2])
    legend = scatter_plot(points, labels, ["cat", "dog", "fox"], side=100)[:, :, 100:]
    assert [len(places(legend, colour(label))) > 0 for label in range(3)] == [True, False, True]


def test_classes_of_one_name_have_an_entry_each():
    points, labels = torch.rand(2, 2), torch.tensor([0, 1])
    legend = scatter_plot(points, labels, ["cat", "cat"], side=100)[:, :, 100:]
    assert all(len(places(legend, colour(label))) for label in range(2))


@pytest.mark.parametrize("points", [torch.zeros(1, 2), torch.ones(5, 2), torch.rand(300, 2) * 1e30])
def test_any_cloud_has_a_picture(points):
    labels = torch.arange(len(points)) % 120
    pixels = scatter_plot(points, labels, [f"class {label}" for label in range(120)], side=64)
    assert pixels.dtype == torch.uint8
    assert pixels.shape[1] == 64
    assert pixels.shape[2] > 64


def test_thirty_classes_have_thirty_colours():
    assert len({colour(label) for label in range(30)}) == 30


@pytest.mark.parametrize("end", [1, 0.3, 8 / 255, 255, 3e-5, 1e-20, 7.3, 1.41, 9.99, 2])
def test_ticks_are_few_and_round(end):
    stops = ticks(end)
    assert stops[0] == 0
    assert 3 <= len(stops) <= 8
    assert end * 0.7 < stops[-1] <= end * (1 + 1e-9)
    steps = {f"{b - a:.6e}" for a, b in pairwise(stops)}
    assert len(steps) == 1
    assert steps.pop()[0] in "125"


@pytest.mark.parametrize(("line", "half"), [([(0, 0.5), (2, 0.5)], False), ([(0, 0.5), (1.5, 0.5)], True)])
def test_epochs_have_whole_numbers(line, half):
    below = drawing_of(drawn(line, ymax=1.0)).marks[0].drawing
    assert [mark.words for mark in below.marks] == (
        ["0", "0.5", "1", "1.5", "radius"] if half else ["0", "1", "2", "radius"]
    )


def test_a_point_is_a_dot_at_its_place():
    pixels = drawn([(0.5, 0.25)], ymax=1.0)
    dot = places(pixels, colour(0))
    dot = dot[dot[:, 0] > TOP + 30].float()  # the legend is above
    rows, columns = dot.mean(0).tolist()
    left = pixels.shape[2] - 200 - 16
    assert rows == pytest.approx(TOP + 75, abs=2)
    # the one point is where the axis ends
    assert columns == pytest.approx(left + 200, abs=4)


def test_a_falling_line_falls():
    pixels = drawn([(0, 1), (1, 0)], ymax=1.0)
    line = places(pixels, colour(0))
    line = line[line[:, 1] < pixels.shape[2] - 60]
    left = [line[line[:, 1] == column][:, 0].float().mean() for column in line[:, 1].unique().tolist()]
    assert len(left) > 100
    assert all(a <= b + 1 for a, b in pairwise(left))


def test_every_line_has_its_colour_and_its_name_a_dot():
    pixels = line_plot({"a": [(0, 1), (1, 0)], "b": [(1, 0.5)]}, xlabel="", ylabel="")
    assert all(len(places(pixels, colour(k))) > 20 for k in (0, 1))
    assert not len(places(pixels, colour(2)))


def test_a_vertical_line_is_drawn_at_its_value():
    plain, marked = (drawn([(0, 1), (1, 0)], vline=place) for place in (None, 0.5))
    columns = (plain != marked)[:, : TOP + 100].any(0).nonzero()[:, 1]  # its name stands below
    assert 1 <= columns.max() - columns.min() + 1 <= 3
    assert columns.float().mean() == pytest.approx(plain.shape[2] - 16 - 100, abs=2)


@pytest.mark.parametrize("line", [[(0, 0)], [(0, 0), (0, 1)], [(0, 1), (1e-30, 1)], [(0, 0), (3e7, 5e9)]])
def test_any_points_have_a_picture(line):
    pixels = drawn(line)
    assert pixels.dtype == torch.uint8
    assert pixels.shape[1] == TOP + 100 + 3 * LINE - 4


@pytest.mark.parametrize("line", [[], [(-1, 0)], [(0, float("nan"))], [(float("inf"), 1)]])
def test_what_is_no_point_is_refused(line):
    with pytest.raises(ValueError, match="wanted at least one, all finite and at least 0"):
        drawn(line)


def test_higher_values_are_higher_up_and_later_names_further_right():
    pixels = category_plot(["one", "two"], {"only": [0.25, 0.75]}, ylabel="value", ymax=1.0)
    found = places(pixels[:, 20:220, 30:200], BRIGHT)  # without the legend
    left, right = found[found[:, 1].argmin()], found[found[:, 1].argmax()]
    assert left[0] - right[0] == pytest.approx(97, abs=4)  # half of the field
    assert right[1] - left[1] == pytest.approx(90, abs=9)


def test_the_last_line_is_the_brightest():
    lines = {"first": [0.2, 0.2], "last": [0.8, 0.8]}
    pixels = category_plot(["one", "two"], lines, ylabel="value", ymax=1.0)
    rows = places(pixels[:, 20:220, 30:200], BRIGHT)[:, 0]
    assert 30 < rows.float().mean() < 50


def test_a_gap_is_left_where_a_value_is_not_finite():
    whole, gapped, infinite = (
        category_plot(["a", "b", "c"], {"x": [0.5, middle, 0.5]}, ylabel="value", ymax=1.0)
        for middle in (0.5, float("nan"), float("inf"))
    )
    assert torch.equal(gapped, infinite)
    assert len(places(gapped, BRIGHT)) < len(places(whole, BRIGHT)) / 2


def test_an_interval_is_drawn_at_the_last_line():
    lines = {"first": [0.1], "last": [0.5]}
    bare, spanned = (
        category_plot(["a"], lines, ylabel="value", ymax=1.0, intervals=intervals)
        for intervals in (None, [(0.3, 0.7)])
    )
    changed = (bare != spanned).any(0).nonzero()
    assert changed[:, 0].max() - changed[:, 0].min() == pytest.approx(0.4 * 194, abs=4)


def test_of_many_lines_the_first_the_last_and_some_between_are_drawn():
    lines = {str(number): [number / 100] for number in range(100)}
    few = {str(number): [number / 100] for number in (0, 14, 28, 42, 57, 71, 85, 99)}
    assert torch.equal(
        category_plot(["a"], lines, ylabel="value", ymax=1.0),
        category_plot(["a"], few, ylabel="value", ymax=1.0),
    )


@pytest.mark.parametrize("names", [["a"], ["a" * 200, "b"], [f"layer{n}.conv" for n in range(200)]], ids=len)
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, float("nan")])
def test_any_values_have_a_picture(names, value):
    lines = {"start": [value] * len(names), "1": [0.0] * len(names)}
    pixels = category_plot(names, lines, ylabel="value")
    assert pixels.dtype == torch.uint8
    assert pixels.shape[2] < 2000
    assert pixels[:, 0, -1].tolist() == list(BACKGROUND)


def test_each_name_has_a_value():
    with pytest.raises(ValueError, match="line 'x' has 1 values for 2 names"):
        category_plot(["a", "b"], {"x": [1.0]}, ylabel="value")
    with pytest.raises(ValueError, match="0 names and 1 lines"):
        category_plot([], {"x": []}, ylabel="value")


@pytest.mark.parametrize("classes", [1, 2, 10, 120])
def test_a_confusion_matrix_of_any_size_has_a_picture(classes):
    counts = torch.randint(0, 100, (classes, classes))
    pixels = confusion_matrix(counts, [f"class {label}" for label in range(classes)])
    assert pixels.dtype == torch.uint8
    assert pixels.shape[0] == 3
    assert 34 <= pixels.shape[1] < 900


def test_a_confusion_matrix_of_digits_has_paper_around_its_cells_and_names():
    pixels = confusion_matrix(100 * torch.eye(10, dtype=torch.long), [str(digit) for digit in range(10)])
    paper = pixels[:, 0, 0]
    assert (pixels[:, :, -EDGE:] == paper[:, None, None]).all()
    lit = (pixels[:, :30, 30:] != paper[:, None, None]).any(0).any(1).tolist()
    words = "".join("#" if row else " " for row in lit).split("    ")  # four rows of paper
    assert len([part for part in words if "#" in part]) == 2  # "predicted" above the digits


def test_a_perfect_confusion_matrix_is_bright_on_its_diagonal():
    pixels = confusion_matrix(100 * torch.eye(120, dtype=torch.long), [""] * 120)
    assert pixels.shape[1] > 600 == pixels.shape[2]  # a scale is below
    assert pixels[:, 2, 2].tolist() == [252, 255, 164]
    assert pixels[:, 2, 7].tolist() == [0, 0, 4]


def test_rows_are_true_classes_and_columns_predicted_ones():
    counts = torch.zeros(120, 120, dtype=torch.long)
    counts[3, 7] = 1
    assert confusion_matrix(counts, [""] * 120)[0].argmax() == 5 * 3 * 600 + 5 * 7


def test_a_class_without_images_has_a_black_row():
    counts = torch.eye(120, dtype=torch.long)
    counts[1, 1] = 0
    assert confusion_matrix(counts, [""] * 120)[:, 7].float().mean(1).tolist() == [0, 0, 4]


def test_every_class_needs_a_name():
    with pytest.raises(ValueError, match="wanted a name for each of 3 classes, got 2"):
        confusion_matrix(torch.eye(3, dtype=torch.long), ["cat", "dog"])


def test_the_legend_keeps_out_of_the_lines_way():
    rising = {"a": [(0.0, 0.0), (1.0, 1.0)], "b": [(0.0, 0.0), (0.9, 1.0)]}
    falling = {name: [(x, 1 - y) for x, y in line] for name, line in rising.items()}
    halves = []
    for lines in (rising, falling):
        names = line_plot(lines, xlabel="x", ylabel="y")[:, 26:70, 34:-18].amin(0) > 150
        halves.append([bool(half.any()) for half in names.chunk(2, 1)])
    assert halves == [[True, False], [False, True]]


def test_each_line_may_be_of_its_own_number_of_images_and_have_none():
    def bars(images):
        lines = {"a": [(1, 0.5)], "b": [(2, 0.5)]}
        return line_plot(lines, xlabel="", ylabel="", ymax=1.0, chance=0.25, images=images)

    few, many, none = (bars({"a": [count], "b": [0]}) for count in (4, 400, 0))
    assert not torch.equal(few, many)
    assert torch.equal(none, bars(None))
    assert torch.equal(bars({"a": [4], "b": [4]}), bars(4))


def test_a_vertical_line_is_named():
    paper = line_plot({"": [(0, 1), (0.06, 0)]}, xlabel="radius", ylabel="y", vline=8 / 255)
    assert "radius; the vertical line is at 0.0314" in words(paper)
