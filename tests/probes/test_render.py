"""Tiles, grids, captions and sheets, read back."""

import pytest
import torch
from PIL import Image

from fulgurite.probes.composites import composites_noted, shown_as
from fulgurite.probes.drawing import Part, drawing_of, length
from fulgurite.probes.render import (
    BACKGROUND,
    LINE,
    blank,
    broken,
    captioned,
    cut,
    enlarged,
    font,
    from_pil,
    grid,
    heat,
    picture,
    sheet,
    shrunk,
    signed,
    to_pil,
)

MAGENTA = [255, 0, 255]
NAN, INF = float("nan"), float("inf")


def plain(value: int, height: int = 2, width: int = 3) -> torch.Tensor:
    return torch.full((3, height, width), value, dtype=torch.uint8)


def luminance(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels.float() * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_runs_from_black_to_white(channels):
    values = torch.tensor([0, 1, 0.5, -3, 7]).expand(channels, 1, 5)
    assert picture(values).tolist() == [[[0, 255, 128, 0, 255]]] * 3


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_is_magenta(value):
    values = torch.tensor([[value, 1.0]])
    assert picture(values.expand(3, 1, 2))[:, 0, 0].tolist() == MAGENTA
    assert signed(values[None])[:, 0].tolist() == [[255, 255], [0, 255], [255, 255]]
    assert heat(values).permute(1, 2, 0).tolist() == [[MAGENTA, [252, 255, 164]]]


@pytest.mark.parametrize(("channels", "shown"), [(2, (0, 1, 1)), (4, (0, 1, 2)), (13, (0, 1, 2))])
def test_an_image_of_other_channels_is_a_composite(channels, shown):
    image = torch.rand(channels, 3, 3)
    assert torch.equal(picture(image), picture(image[list(shown)]))


def test_pictures_can_say_which_channels_they_show():
    with composites_noted() as lines:
        for channels in (1, 3, 2, 4, 4):
            picture(torch.rand(channels, 2, 2))
        with shown_as("infrared"):
            picture(torch.rand(4, 2, 2))
    assert list(lines) == [
        "shown as red channel 0, green and blue channel 1 (of 2, counted from 0)",
        "shown as red channel 0, green channel 1, blue channel 2 (of 4, counted from 0)",
        "shown as red channel 3, green channel 0, blue channel 1 (of 4, counted from 0)",
    ]


def test_a_composite_is_chosen_by_name_or_numbers_for_a_block():
    image = torch.rand(4, 3, 3)
    with shown_as("infrared"):
        assert torch.equal(picture(image), picture(image[[3, 0, 1]]))
        with shown_as((2, 2, 0)):
            assert torch.equal(picture(image), picture(image[[2, 2, 0]]))
        assert torch.equal(picture(image[:3]), picture(image[:3][[0, 1, 2]]))
    assert torch.equal(picture(image), picture(image[:3]))
    with shown_as((0, 1, 4)), pytest.raises(ValueError, match="but images have 4"):
        picture(image)


def test_a_picture_of_half_precision_under_a_graph_is_a_picture():
    assert picture(torch.ones(1, 2, 2, dtype=torch.float16, requires_grad=True)).eq(255).all()


@pytest.mark.parametrize("top", [None, 2.0])
def test_zero_is_mid_grey_and_the_largest_size_black_or_white(top):
    assert signed(torch.tensor([[[-2.0, 0, 2]]]), top=top)[0].tolist() == [[0, 128, 255]]


def test_weights_all_zero_are_all_mid_grey():
    assert signed(torch.zeros(3, 2, 2)).eq(128).all()


def test_heat_grows_lighter_with_every_step():
    pixels = heat(torch.linspace(0, 1, 200)[None], top=1.0)
    assert (luminance(pixels).diff() > -0.7).all()  # a rounded colour may be off by half
    assert (luminance(pixels)[:, ::10].diff() > 0).all()
    assert pixels[:, 0, 0].tolist() == [0, 0, 4]
    assert pixels[:, 0, -1].tolist() == [252, 255, 164]


def test_heat_leaves_the_brightest_hundredth_out_of_its_scale():
    values = torch.arange(10000.0).view(100, 100)
    values[99, 99] = 1e9
    assert torch.equal(heat(values)[:, 99, 0], heat(values)[:, 99, 99])
    assert torch.equal(heat(values), heat(1e-20 * values))


def test_heat_of_nothing_is_black():
    assert heat(torch.zeros(2, 2)).permute(1, 2, 0).eq(torch.tensor([0, 0, 4])).all()


def test_enlarging_repeats_pixels():
    large = enlarged(torch.cat([plain(1, 1, 1), plain(2, 1, 1)], 2), side=3)
    assert large[0].tolist() == [[1, 1, 1, 2, 2, 2]] * 3
    assert enlarged(plain(1, 9, 9), side=3).shape == (3, 9, 9)


@pytest.mark.parametrize(("size", "expected"), [((10, 40), (5, 20)), ((20, 3), (20, 3)), ((1, 400), (1, 20))])
def test_shrinking_keeps_the_proportions(size, expected):
    small = shrunk(plain(9, *size), side=20)
    assert small.shape[1:] == expected
    assert small.eq(9).all()


def test_a_grid_lays_tiles_out_in_rows():
    pixels = grid([plain(place + 1) for place in range(5)], columns=3, gap=1)
    assert pixels.shape == (3, 2 * 3 + 1, 3 * 4 + 1)
    for place in range(5):
        top, left = 1 + place // 3 * 3, 1 + place % 3 * 4
        assert pixels[:, top : top + 2, left : left + 3].eq(place + 1).all()
    background = torch.tensor(BACKGROUND)[:, None]
    assert (pixels[:, 0] == background).all()
    assert (pixels[:, 4, 9:] == background).all()


def test_a_grid_gives_every_tile_the_room_of_the_largest():
    pixels = grid([plain(1, 2, 2), plain(2, 4, 5)], columns=2, gap=0)
    assert pixels.shape == (3, 4, 10)
    assert pixels[0, :2, :2].eq(1).all()
    assert pixels[0, :, 5:].eq(2).all()


@pytest.mark.parametrize(("tiles", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4)])
def test_a_grid_is_about_as_wide_as_high(tiles, columns):
    assert grid([plain(0, 1, 1)] * tiles, gap=0).shape[2] == columns


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_a_caption_adds_its_lines_below(lines):
    pixels = plain(7, 4, 60)
    with_lines = captioned(pixels, *["a cat 97%"] * lines)
    assert with_lines.shape == (3, 4 + LINE * lines, 60)
    assert torch.equal(with_lines[:, :4], pixels)
    if lines:
        assert with_lines[:, 4:].float().std() > 1


def test_a_caption_is_cut_to_the_width():
    line = cut("a very long name of a class", 50)
    assert line.startswith("a ve")
    assert line.endswith("…")
    assert font().getlength(line) <= 50
    assert cut("short", 50) == "short"
    assert captioned(plain(0, 1, 1), "hello").shape == (3, 1 + LINE, 1)


@pytest.mark.parametrize("line", ["64 test", "0.15 in", "10 x"])
def test_a_blank_after_a_digit_is_seen(line):
    assert font().getlength(line) - font().getlength(line.replace(" ", "")) >= 3


def test_no_letter_reaches_below_its_line():
    below = captioned(plain(0, 1, 60), "gjpqy", "")[:, 1 + LINE :]
    assert (below == torch.tensor(BACKGROUND)[:, None, None]).all()


def test_a_sheet_puts_rows_under_columns():
    pixels = sheet({"a": [plain(201, 20, 30), plain(202, 20, 30)], "b": [plain(203, 20, 30)]}, columns="12")
    places = {value: (pixels == value).all(0).nonzero()[0].tolist() for value in (201, 202, 203)}
    assert places[201][0] == places[202][0] < places[203][0]
    assert places[201][1] == places[203][1] < places[202][1]
    for value, (top, left) in places.items():
        assert pixels[:, top : top + 20, left : left + 30].eq(value).all()


def test_a_picture_survives_pillow():
    pixels = torch.randint(0, 256, (3, 5, 4), dtype=torch.uint8)
    assert torch.equal(from_pil(to_pil(pixels)), pixels)
    assert from_pil(Image.new("L", (4, 5))).shape == (3, 5, 4)


def test_long_names_of_rows_are_broken_and_cut_only_where_their_row_is_too_low():
    name = "a_photograph_of_the_old_harbour_at_noon-copy_17 of many"
    lines = broken(name, 160)
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert all(length(line) <= 160 for line in lines)
    assert lines[0].endswith("_")
    for height, shown in ((80, lines), (20, [cut(name, 160)])):
        drawn = drawing_of(sheet({name: [torch.zeros(3, height, 80, dtype=torch.uint8)]}, columns=["a"]))
        words = [mark.words for mark in drawn.marks if hasattr(mark, "words")]
        assert words[1:] == shown
    assert broken("x" * 100, 30)[-1].strip("x") == ""
    assert broken("ab c", -2) == ["a", "b", "c"]  # beside a tile of one pixel


def test_a_row_of_a_sheet_is_as_high_as_its_pictures_and_begins_with_its_own():
    tall, low, own = blank(60, 20), blank(30, 20), blank(50, 40)
    paper = sheet({"a": [tall, tall], "b": [low, low]}, columns=["", ""], first={"b": own})
    parts = [mark for mark in drawing_of(paper).marks if isinstance(mark, Part)]
    (top,) = {part.at[1] for part in parts if part.pixels is tall}
    (second,) = {part.at[1] for part in parts if part.pixels is not tall}
    assert second == top + 60 + 2
    assert paper.shape[1] == second + 50 + 2
    left = {part.at[0] for part in parts if part.pixels is own}
    assert max(left) + 40 < min(part.at[0] for part in parts if part.pixels is not own)
