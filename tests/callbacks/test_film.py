"""Films: evenly spaced frames, resumed, and none of a single look."""

from itertools import pairwise
from pathlib import Path

import torch

from fulgurite.callbacks.framework.artifacts import (
    Picture,
)
from fulgurite.callbacks.framework.film import Film


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


def test_a_film_goes_on_after_a_resume_and_its_state_loads_as_plain_weights(tmp_path: Path):
    film = Film()
    for look in range(3):
        film.add(str(look), {"a": Picture(torch.full((3, 4, 4), 9 * look, dtype=torch.uint8))})
    torch.save(film.state_dict(), tmp_path / "film.pt")
    again = Film()
    again.load_state_dict(torch.load(tmp_path / "film.pt", weights_only=True))
    again.add("3", {"a": Picture(torch.zeros(3, 4, 4, dtype=torch.uint8))})
    assert [label for _, label, _ in again.frames] == ["0", "1", "2", "3"]
    assert torch.equal(film.strip().pixels[:, :, :40], again.strip().pixels[:, :, :40])


def test_a_film_of_one_look_is_none():
    film = Film()
    film.add("start", {"a": Picture(torch.zeros(3, 4, 4, dtype=torch.uint8))})
    assert film.strip() is None
