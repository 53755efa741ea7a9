"""Every picture of the documentation is made by one command, and shown on a page."""

from pathlib import Path

import pytest
from PIL import Image

from docs import gallery

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
