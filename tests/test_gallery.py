"""Every picture of the documentation is made by one command, and shown on a page."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from docs import gallery
from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.callbacks.framework.film import Film
from fulgurite.probes.render import captioned, from_pil, to_pil

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"


def test_the_gallery_lists_every_picture_there_is_and_no_other():
    assert set(gallery.PICTURES) == {file.name for file in PICTURES.iterdir()}


@pytest.mark.parametrize("name", sorted(gallery.PICTURES))
def test_a_picture_is_whole_and_on_a_page(name: str):
    with Image.open(PICTURES / name) as picture:
        picture.load()
        assert min(picture.size) >= 150
    pages = [file.read_text() for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]]
    assert any(f"pictures/{name})" in page for page in pages)
    assert gallery.PICTURES[name].command
    assert gallery.PICTURES[name].shows


def test_a_picture_that_is_not_listed_is_refused(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        gallery.main(["dragons.png"])
    assert "no picture dragons.png; there are: strip.png" in capsys.readouterr().err
    gallery.main(["--list"])
    assert "benchmarks.dreams" in capsys.readouterr().out


def test_the_strip_has_whole_images_of_the_film_and_their_epochs():
    film = Film(side=112)
    for level, label in enumerate(("start", "1", "2")):
        tiles = {
            str(digit): Picture(
                captioned(torch.full((3, 96, 96), 20 * digit + 5 * level, dtype=torch.uint8), "9%")
            )
            for digit in range(10)
        }
        film.add(label, tiles)
    whole = film.strip(title="ClassImages")
    assert whole is not None
    strip = from_pil(gallery.strip(to_pil(whole.pixels)))
    for row, digit in enumerate(gallery.ROWS):
        for column in range(3):
            level = 20 * digit + 5 * column
            where = (strip == level).all(0).nonzero()
            assert len(where) >= 96 * 96
            y, x = where.amin(0).tolist()
            assert (strip[:, y : y + 96, x : x + 96] == level).all()
            assert (y, x) == (17 + row * 98, column * 98)
