import pytest
import torch

from fulgurite.probes.profiles import profile
from fulgurite.probes.render import GROUND, heat

BRIGHT = heat(torch.ones(1, 1), top=1.0)[:, 0, 0]


def places(pixels: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Rows and columns of pixels of a colour."""
    return (pixels == colour[:, None, None]).all(0).nonzero()


def test_higher_values_are_higher_up_and_later_names_further_right():
    pixels = profile(["one", "two"], {"only": [0.25, 0.75]}, up="value", top=1.0)
    line = pixels[:, 20:220, 30:200]  # without the legend
    found = places(line, BRIGHT)
    left, right = found[found[:, 1].argmin()], found[found[:, 1].argmax()]
    assert left[0] - right[0] == pytest.approx(97, abs=4)  # half of the field
    assert right[1] - left[1] == pytest.approx(90, abs=9)


def test_the_last_line_is_the_brightest():
    pixels = profile(["one", "two"], {"first": [0.2, 0.2], "last": [0.8, 0.8]}, up="value", top=1.0)
    rows = places(pixels[:, 20:220, 30:200], BRIGHT)[:, 0]
    assert 30 < rows.float().mean() < 50


def test_a_gap_is_left_where_a_value_is_not_finite():
    whole = profile(["a", "b", "c"], {"x": [0.5, 0.5, 0.5]}, up="value", top=1.0)
    gapped = profile(["a", "b", "c"], {"x": [0.5, float("nan"), 0.5]}, up="value", top=1.0)
    infinite = profile(["a", "b", "c"], {"x": [0.5, float("inf"), 0.5]}, up="value", top=1.0)
    assert torch.equal(gapped, infinite)
    assert len(places(gapped, BRIGHT)) < len(places(whole, BRIGHT)) / 2


def test_a_span_is_drawn_at_the_last_line():
    bare = profile(["a"], {"first": [0.1], "last": [0.5]}, up="value", top=1.0)
    spanned = profile(["a"], {"first": [0.1], "last": [0.5]}, up="value", top=1.0, spans=[(0.3, 0.7)])
    changed = (bare != spanned).any(0).nonzero()
    assert changed[:, 0].max() - changed[:, 0].min() == pytest.approx(0.4 * 194, abs=4)


def test_of_many_lines_the_first_the_last_and_some_between_are_drawn():
    lines = {str(number): [number / 100] for number in range(100)}
    pixels = profile(["a"], lines, up="value", top=1.0)
    assert torch.equal(
        pixels,
        profile(["a"], {str(n): [n / 100] for n in (0, 14, 28, 42, 57, 71, 85, 99)}, up="value", top=1.0),
    )


@pytest.mark.parametrize("names", [["a"], ["a" * 200, "b"], [f"layer{n}.conv" for n in range(200)]], ids=len)
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, float("nan")])
def test_anything_has_a_picture(names, value):
    pixels = profile(names, {"start": [value] * len(names), "1": [0.0] * len(names)}, up="value")
    assert pixels.dtype == torch.uint8
    assert pixels.shape[2] < 2000
    assert pixels[:, 0, -1].tolist() == list(GROUND)


def test_each_name_has_a_value():
    with pytest.raises(ValueError, match="line 'x' has 1 values for 2 names"):
        profile(["a", "b"], {"x": [1.0]}, up="value")
    with pytest.raises(ValueError, match="0 names and 1 lines"):
        profile([], {"x": []}, up="value")
