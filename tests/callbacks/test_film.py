"""Films: evenly spaced frames, resumed, and none of a single look."""

from itertools import pairwise
from pathlib import Path

import pytest
import somebody
import torch
from drawn_words import words

from fulgurite.callbacks import saliency
from fulgurite.callbacks.framework import film as films
from fulgurite.callbacks.framework.artifacts import Picture
from fulgurite.callbacks.framework.film import AllEpochs, Film, Strip
from fulgurite.callbacks.saliency import Saliency
from fulgurite.probes.render import blank, sheet
from fulgurite.probes.style import drawn_in


def test_a_film_keeps_evenly_spaced_frames_and_the_newest():
    film = Film(max_frames=8)
    for look in range(101):
        film.add(str(look), {"a": Picture(torch.full((3, 4, 4), look, dtype=torch.uint8))})
    kept = [int(label) for _, label, _ in film.frames]
    assert kept[0] == 0
    assert kept[-1] == 100
    assert len(kept) <= 9
    assert len({later - earlier for earlier, later in pairwise(kept[:-1])}) == 1
    assert film.strip().pixels.shape[2] > 4 * len(kept)


def test_a_film_continues_after_a_resume_and_its_state_loads_as_plain_weights(tmp_path: Path):
    film = Film()
    for look in range(3):
        film.add(str(look), {"a": Picture(torch.full((3, 4, 4), 9 * look, dtype=torch.uint8))})
    torch.save(film.state_dict(), tmp_path / "film.pt")
    again = Film()
    again.load_state_dict(torch.load(tmp_path / "film.pt", weights_only=True))
    again.add("3", {"a": Picture(torch.zeros(3, 4, 4, dtype=torch.uint8))})
    assert [label for _, label, _ in again.frames] == ["0", "1", "2", "3"]
    assert torch.equal(film.strip().pixels[:, :, :40], again.strip().pixels[:, :, :40])


def test_rows_of_a_film_have_the_names_of_the_sheet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    shown: dict[str, set[str]] = {"film": set(), "sheet": set()}

    def film_sheet(rows, **how):
        shown["film"] |= rows.keys()
        return sheet(rows, **how)

    def map_sheet(rows, **how):
        shown["sheet"] |= rows.keys()
        return blank(8, 8)

    monkeypatch.setattr(films, "sheet", film_sheet)
    monkeypatch.setattr(saliency, "map_sheet", map_sheet)
    probe = Saliency(images=3, mean=somebody.MEAN, std=somebody.STD, on_error="raise")
    somebody.quiet(tmp_path, probe, max_epochs=1).fit(
        somebody.Theirs(), somebody.loader(8), somebody.loader(9)
    )
    assert shown["sheet"] == {"image 0", "image 3", "image 6"}
    assert shown["film"] == shown["sheet"]


def test_names_of_rows_are_also_those_of_a_film_that_an_older_run_began():
    old = Film()
    for label in ("start", "1"):
        old.add(label, {"image 00": Picture(torch.zeros(3, 4, 4, dtype=torch.uint8))})
    strip = old.strip("Saliency", {"image 00": "wolf"})
    assert [list(pictures) for _, pictures in strip.looks] == [["wolf"], ["wolf"]]


def test_a_strip_of_wide_pictures_has_two_columns_and_of_others_three_at_least():
    for wide, columns in ((960, 2), (600, 3), (96, 4)):
        film = Film(side=wide)
        for label in ("start", "1", "2", "3"):
            film.add(label, {"a": Picture(torch.full((3, 8, wide), 99, dtype=torch.uint8))})
        strip = film.strip()
        assert strip is not None
        assert (strip.pixels == 99).all(0).sum() == columns * 8 * wide
        assert ("2 of 4 columns: the first and the last" in words(strip.pixels)) == (columns == 2)


def test_a_film_of_one_look_is_none():
    film = Film()
    film.add("start", {"a": Picture(torch.zeros(3, 4, 4, dtype=torch.uint8))})
    assert film.strip() is None


def test_a_film_keeps_the_theme_of_its_frames_in_a_checkpoint_too(tmp_path: Path):
    film, older, again = Film(), Film(), Film()
    with drawn_in("light"):
        for label in ("start", "1"):
            film.add(label, {"a": Picture(torch.full((3, 8, 8), 255, dtype=torch.uint8))})
        light = film.strip("A")
    torch.save(film.state_dict(), tmp_path / "film.pt")
    again.load_state_dict(torch.load(tmp_path / "film.pt", weights_only=True))
    with drawn_in("dark"):
        strip = again.strip("A")
        assert isinstance(strip, Strip)
        assert isinstance(light, Strip)
        assert torch.equal(strip.pixels, light.pixels)
        assert strip.animation() == light.animation()
        # a film without one is drawn in that of the command
        older.load_state_dict({key: own for key, own in film.state_dict().items() if key != "theme"})
        assert not torch.equal(older.strip("A").pixels, light.pixels)


def test_a_strip_has_its_title_and_the_names_of_its_columns():
    film = Film()
    for label in ("start", "1"):
        film.add(label, {"image 0": Picture(torch.zeros(3, 4, 400, dtype=torch.uint8))})
    strip = film.strip(title="Attribution")
    assert strip is not None
    assert {"Attribution", "before training", "epoch 1"} <= {*words(strip.pixels)}


def test_scales_are_below_the_columns_of_a_strip():
    film = Film()
    for label in ("start", "1"):
        film.add(
            label, {name: Picture(torch.full((3, 8, 40), 99, dtype=torch.uint8)) for name in ("a", "scale")}
        )
    strip = film.strip()
    assert strip is not None
    assert "a" in words(strip.pixels)
    assert "scale" not in words(strip.pixels)
    assert (strip.pixels == 99).all(0).sum() == 4 * 8 * 40


def test_a_scale_is_no_wider_than_its_column():
    film = Film()
    for label in ("start", "1"):
        tile, scale = (torch.full((3, 8, wide), 99, dtype=torch.uint8) for wide in (70, 90))
        film.add(label, {"a": Picture(tile), "scale": Picture(scale)})
    strip = film.strip()
    assert strip is not None
    shown = (strip.pixels == 99).all(0)
    lowest = shown.any(1).nonzero()[-1]
    assert 2 * 66 <= shown[lowest].sum() <= 2 * 70
    assert "each epoch has its own scale" in " ".join(words(strip.pixels))


def test_charts_of_all_epochs_are_in_no_film():
    film, pixels = Film(), torch.zeros(3, 40, 40, dtype=torch.uint8)
    for epoch in range(3):
        film.add(str(epoch), {"": AllEpochs(pixels)})
    assert film.strip() is None
    for epoch in range(3):
        film.add(str(epoch), {"": AllEpochs(pixels), "reliability": Picture(pixels)})
    assert [list(kept) for _, _, kept in film.frames] == [["reliability"]] * 3
