"""Themes and files of vectors, read back."""

import base64
import re
import xml.etree.ElementTree as ET
import zlib

import pytest
import torch

from fulgurite.probes.colours import common_top, diverging, heat, overlaid, scale_bar
from fulgurite.probes.drawing import drawing_of
from fulgurite.probes.plots import category_plot, confusion_matrix, line_plot
from fulgurite.probes.render import captioned, decoded, grid, noted, sheet, stacked, titled, write
from fulgurite.probes.style import THEMES, colour, drawn_in, rgb, theme

# how a reader without one kind of cones sees linear RGB: Machado et al. 2009, at full severity
BLIND = {
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
LINES = {"one": [(0.0, 0.6), (1.0, 0.9)], "two & more": [(0.0, 0.8), (1.0, 0.7)]}


def tile(value: int = 90) -> torch.Tensor:
    return torch.full((3, 20, 30), value, dtype=torch.uint8)


def pictures() -> dict[str, torch.Tensor]:
    return {
        "caption": captioned(tile(), "words"),
        "title": titled(tile(), "words"),
        "note": noted(tile(), "words"),
        "sheet": sheet({"row": [tile()]}, columns=["column"]),
        "lines": line_plot(LINES, xlabel="x", ylabel="y"),
        "categories": category_plot(["a", "b"], {"x": [0.2, 0.5]}, ylabel="y"),
        "matrix": confusion_matrix(torch.eye(3, dtype=torch.long), "abc"),
        "scale": scale_bar("signed", 0.3, "score"),
    }


@pytest.mark.parametrize("name", pictures())
def test_a_theme_holds_for_every_kind_of_picture_within_its_block(name):
    dark = pictures()[name]
    with drawn_in("light"):
        light = pictures()[name]
    assert torch.equal(pictures()[name], dark)
    assert light.shape == dark.shape
    corner = [own[:, -1, -1].tolist() for own in (dark, light)]
    assert corner == [list(THEMES[own].background) for own in ("dark", "light")]
    ink = light.permute(1, 2, 0).reshape(-1, 3).min(0).values
    assert int(ink.max()) < 60  # dark words


def test_a_theme_is_chosen_by_name():
    with pytest.raises(ValueError, match="theme='sepia'; wanted one of dark, light"), drawn_in("sepia"):
        pass
    with drawn_in("light"), drawn_in(None):
        assert theme() is THEMES["light"]


@pytest.mark.parametrize("name", THEMES)
def test_magnitudes_and_signed_values_begin_at_the_paper_and_go_away_from_it(name):
    with drawn_in(name):
        up = heat(torch.linspace(0, 1, 50)[None], top=1.0)
        both = diverging(torch.linspace(-1, 1, 101)[None], top=1.0)
        ink = torch.tensor(theme().background)[:, None, None]
    light = {
        key: (own.float() * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(0)[0]
        for key, own in {"up": up, "both": both}.items()
    }
    away = 1 if name == "dark" else -1
    assert (away * light["up"].diff() > -0.7).all()
    assert (away * light["both"][50:].diff() > -0.7).all()
    assert (away * light["both"][:51].flip(0).diff() > -0.7).all()
    assert (both[:, :, 50:51] - ink.float()).abs().max() < 26
    assert abs(light["both"][0] - light["both"][-1]) < 25


@pytest.mark.parametrize("kind", BLIND)
@pytest.mark.parametrize("name", THEMES)
def test_signs_differ_to_readers_of_any_colour_vision(name, kind):
    seen = torch.tensor(BLIND[kind])
    with drawn_in(name):
        for size in (0.5, 1.0):
            ends = diverging(torch.tensor([[-size, size]]), top=1.0).float()[:, 0] / 255
            over = overlaid(tile()[:, :1, :2], torch.tensor([[-size, size]]), top=1.0)
            for pair in (ends, over.float()[:, 0] / 255):
                shown = (seen @ pair**2.2).clamp(0, 1) ** (1 / 2.2)
                assert (shown[:, 0] - shown[:, 1]).norm() > 0.2


def test_the_end_of_a_common_scale_is_the_strongest_maps_but_outliers():
    weak, strong = torch.rand(100, 100) * 1e-3, torch.linspace(-1, 1, 10_000).view(100, 100)
    strong[0, 0] = 1e6
    assert common_top([weak, strong]) == pytest.approx(0.995, abs=0.002)
    assert common_top([torch.zeros(3, 3)]) == 0


def test_a_scale_says_its_ends():
    assert scale_bar("signed", 0.25).shape == scale_bar("over", 0.25).shape
    words = [
        mark.words
        for mark in drawing_of(scale_bar("magnitude", 0.25, "score")).marks
        if hasattr(mark, "words")
    ]
    assert words == ["0", "0.25", "score"]


def composite() -> torch.Tensor:
    plot = line_plot(LINES, xlabel="radius", ylabel="accuracy", chance=0.5, images=100, title="A (plot)")
    return noted(stacked([grid([plot, plot]), sheet({"row": [tile()]}, columns=["column"])]), "a note")


def test_charts_are_vectors_with_their_words_as_text(tmp_path):
    write(composite(), tmp_path / "a.svg")
    root = ET.parse(tmp_path / "a.svg").getroot()
    named = {
        kind: list(root.iter(f"{{http://www.w3.org/2000/svg}}{kind}"))
        for kind in ("text", "image", "polyline")
    }
    words = [one.text for one in named["text"]]
    assert {"radius", "accuracy", "two & more", "A (plot)", "chance 0.5", "column", "a note"} <= set(words)
    assert len(named["image"]) == 1  # the tile
    assert len(named["polyline"]) > 20


def test_a_pdf_has_one_page_with_every_object_in_its_place(tmp_path):
    write(composite(), tmp_path / "a.pdf")
    file = (tmp_path / "a.pdf").read_bytes()
    table = int(re.search(rb"startxref\n(\d+)", file)[1])
    places = [int(line[:10]) for line in file[table:].splitlines()[3:] if line.endswith(b" n ")]
    assert [file[place:].split()[0] for place in places] == [b"%d" % (k + 1) for k in range(len(places))]
    streams = [zlib.decompress(own) for own in re.findall(rb"stream\n(.*?)\nendstream", file, re.S)]
    assert rb"(A \(plot\)) Tj" in streams[0]
    assert streams[1] == tile().permute(1, 2, 0).numpy().tobytes()


def test_what_was_no_drawing_is_pixels_in_a_file_of_vectors(tmp_path):
    write(tile(7), tmp_path / "a.svg")
    (image,) = ET.parse(tmp_path / "a.svg").getroot().iter("{http://www.w3.org/2000/svg}image")
    href = image.get("href").removeprefix("data:image/png;base64,")
    assert torch.equal(decoded(base64.b64decode(href)), tile(7))


@pytest.mark.parametrize(("values", "begins"), [([0.6, 0.9], True), ([0.05, 0.9], False)])
def test_an_axis_begins_at_chance_unless_a_value_is_below(values, begins):
    plot = line_plot({"a": list(enumerate(values))}, xlabel="epoch", ylabel="accuracy", ymax=1.0, chance=0.1)
    bars = category_plot(["x", "y"], {"a": values}, ylabel="accuracy", ymax=1.0, chance=0.1)
    for own in (plot, bars):
        words = set()
        parts = [drawing_of(own)]
        while parts:
            for mark in parts.pop().marks:
                words |= {mark.words} if hasattr(mark, "words") else set()
                parts += [mark.drawing] if getattr(mark, "drawing", None) else []
        assert "chance 0.1" in words
        # the horizontal axis of the line plot has a 0 of its own
        assert ("0" in words) == (own is plot or not begins)
        assert "0.2" in words


def test_a_share_of_few_images_has_a_long_interval():
    lengths = []
    for images in (10, 1000):
        bare, barred = (
            line_plot({"": [(1, 0.5)]}, xlabel="", ylabel="", ymax=1.0, images=count)
            for count in (None, images)
        )
        rows = (bare != barred).any(0).any(1).nonzero()
        lengths.append(int(rows.max() - rows.min()))
    assert lengths[0] == pytest.approx(280 * 0.528, abs=5)  # Wilson: .237 to .763
    assert lengths[1] < 30


def test_curves_differ_from_the_paper():
    for name in THEMES:
        with drawn_in(name):
            paper = torch.tensor(theme().background).float()
            assert all((torch.tensor(rgb(colour(k))) - paper).norm() > 80 for k in range(10))
