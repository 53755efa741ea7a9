"""Animations of films: a frame for each look, of a bounded size, without what is damaged."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from fulgurite.callbacks.boards.folder import Folder, LatestPictures
from fulgurite.callbacks.framework import animation
from fulgurite.callbacks.framework.animation import animated
from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.callbacks.framework.film import Film
from fulgurite.probes.drawing import drawing_of
from fulgurite.probes.style import DARK


def plain(level: int, side: int = 8) -> Picture:
    return Picture(torch.full((3, side, side), level, dtype=torch.uint8))


def film(looks: int = 4, **how) -> Film:
    own = Film(**how)
    for look in range(looks):
        own.add(str(look) if look else "start", {"a": plain(60 * look), "b": plain(250 - 60 * look)})
    return own


def frames(file: bytes) -> list[Image.Image]:
    with Image.open(io.BytesIO(file)) as image:
        found = []
        for place in range(image.n_frames):
            image.seek(place)
            found.append(image.convert("RGB"))
        assert image.info["loop"] == 0
        return found


def test_a_film_has_a_frame_for_each_look_beside_its_strip(tmp_path: Path):
    strip = film().strip("Shows")
    for board, file in (
        (Folder(tmp_path / "all"), "all/pictures/Shows/film/00000009"),
        (LatestPictures(tmp_path / "last"), "last/Shows_film"),
    ):
        board.log({"Shows/film": strip}, 9)
        assert (tmp_path / f"{file}.png").exists()
        shown = frames((tmp_path / f"{file}.gif").read_bytes())
        assert len(shown) == 4
        for place, frame in enumerate(shown):
            # both pictures of the look, each as it was, whatever the other frames show
            levels = {level for _, (level, *_) in frame.getcolors(10**6)}
            assert {60 * place, 250 - 60 * place} <= levels
            assert max(frame.size) >= animation.LEAST
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == ["Shows_film.gif", "Shows_film.png"]


def test_each_frame_says_which_epoch_it_is(monkeypatch: pytest.MonkeyPatch):
    told = []
    own = animation._framed
    monkeypatch.setattr(animation, "_framed", lambda *args: told.append(own(*args)) or told[-1])
    animated([("start", {"a": plain(0).pixels}), ("12", {"a": plain(9).pixels})], "a note", title="Shows")
    words = [[mark.words for mark in drawing_of(one).marks if hasattr(mark, "words")] for one in told]
    assert words == [["Shows, before training"], ["Shows, epoch 12"]]


def test_damaged_frames_are_left_out_and_a_note_says_so():
    own = film()
    own.frames[1][2]["a"] = own.frames[1][2]["a"][:40]  # half a file
    own.frames[2][2]["a"] = torch.zeros(0, dtype=torch.uint8)
    strip = own.strip("Shows")
    assert strip.notes == ["2 of 4 looks cannot be read, and are left out"]
    assert len(frames(strip.animation())) == 2
    own.frames[3][2]["b"] = own.frames[3][2]["b"][:40]
    assert own.strip() is None


def test_a_picture_that_a_look_lacks_leaves_its_place_empty():
    own = Film()
    own.add("1", {"a": plain(100), "b": plain(200)})
    own.add("2", {"a": plain(100)})
    first, second = frames(own.strip().animation())
    assert first.size == second.size
    empty = {level for _, level in second.getcolors(10**6)}
    assert (200, 200, 200) not in empty
    assert DARK.background in empty


def test_an_animation_has_a_bounded_size_in_pixels_and_bytes(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    monkeypatch.setattr(animation, "SIDE", 160)
    monkeypatch.setattr(animation, "LEAST", 40)
    noise = [
        (str(look), {str(name): torch.randint(0, 256, (3, 90, 90), dtype=torch.uint8) for name in range(4)})
        for look in range(2)
    ]
    file = animated(noise)
    size = frames(file)[0].size
    assert max(size) < 1.3 * animation.SIDE
    monkeypatch.setattr(animation, "MOST", len(file) // 2)
    assert len(animated(noise)) <= len(file) // 2
