"""Films of maps: next to their images, on one scale or on that of each epoch, and from checkpoints."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import somebody
import torch
from drawn_words import words
from PIL import Image
from torch import nn

from fulgurite.callbacks.activations import Activations
from fulgurite.callbacks.attribution import Attribution
from fulgurite.callbacks.framework.animation import animated
from fulgurite.callbacks.framework.film import Film, Strip
from fulgurite.callbacks.framework.film_maps import FilmMaps, FilmScale, film_maps
from fulgurite.callbacks.framework.probe_callback import ProbeCallback
from fulgurite.callbacks.framework.sample import Sample
from fulgurite.callbacks.occlusion import Occlusion
from fulgurite.callbacks.saliency import Saliency
from fulgurite.probes.attribution.map_sheets import WORDS, MapRow
from fulgurite.probes.render import from_pil, heat

IMAGE = torch.full((3, 16, 16), 0.5)
MAP = torch.linspace(-1, 1, 256).view(1, 16, 16)
SCALE = {"mean": somebody.MEAN, "std": somebody.STD, "on_error": "raise"}


def maps(size: float, **more: torch.Tensor) -> dict[str, FilmMaps]:
    row = MapRow(IMAGE, {"gradient": size * MAP, **more}, "true bee\npred ant: 60%", wrong=True)
    return film_maps({"a": row}, {"a": "true bee"}, side=96)


def film(*looks: dict[str, FilmMaps], scale: FilmScale | None = None) -> Film:
    own = Film(scale=scale)
    for label, look in zip(("start", "1", "2"), looks, strict=False):
        own.add(label, look)
    return own


def strip_of(own: Film) -> Strip:
    strip = own.strip("Saliency")
    assert isinstance(strip, Strip)
    return strip


def strengths(strip: Strip) -> list[float]:
    """How colourful the maps of each look are."""
    pictures = [own["a"][:, :96].float() for _, own in strip.looks]
    return [float((own.amax(0) - own.amin(0) - 6).clamp(min=0).mean()) for own in pictures]


def test_maps_of_all_epochs_are_on_one_scale_and_each_has_its_strongest_value_below():
    strip = strip_of(film(maps(0.01), maps(1.0)))
    weak, strong = strengths(strip)
    assert weak < strong / 50
    found = words(strip.pixels)
    assert {"max 0.01", "max 1", "-1", "1", "gradient"} <= {*found}
    assert found.count("1") == 1
    assert "one scale for all epochs" in " ".join(found)
    assert "max: an epoch's strongest value (99.5th percentile of pixels)" in " ".join(found)


def test_where_columns_are_left_out_the_film_says_that_the_scale_is_that_of_all():
    own = Film()
    for look in range(10):
        own.add(str(look), maps(1.0))
    found = " ".join(words(strip_of(own).pixels))
    assert "8 of 10 columns: the first, the last, and those that differ most from them; the scale is" in found


def test_each_epoch_has_its_own_scale_where_this_is_wanted_and_the_film_says_so():
    strip = strip_of(film(maps(0.01), maps(1.0), scale="epoch"))
    weak, strong = strengths(strip)
    assert weak == pytest.approx(strong, rel=0.02)
    found = words(strip.pixels)
    assert {"-0.01", "0.01", "-1", "1"} <= {*found}
    assert "each epoch has its own scale, below its maps" in " ".join(found)


def test_a_row_begins_with_its_image_and_its_true_class():
    strip = strip_of(film(maps(1.0), maps(1.0)))
    assert words(strip.pixels).count("true bee") == 1
    assert words(strip.pixels).count("pred ant: 60%") == 2
    grey = (strip.pixels == 128).all(0)
    assert grey.sum() == 96 * 96
    assert grey.any(0).nonzero()[-1] < 120


def test_a_film_says_of_which_class_its_maps_are_and_what_colours_mean_also_from_a_checkpoint():
    own, again = Film(), Film()
    row = MapRow(IMAGE, {"gradient": MAP, "grad_cam": MAP}, "pred ant: 60%")
    for label in ("start", "1"):
        own.add(label, film_maps({"a": row}, {}, side=96, which="maps of the true class"))
    again.load_state_dict(own.state_dict())
    found = words(strip_of(again).pixels)
    assert found.count("maps of the true class") == 1
    assert [line for line in found if "orange" in line] == [WORDS["both"]]
    assert "captions in red: misclassified" not in found
    assert "captions in red: misclassified" in words(strip_of(film(maps(1.0), maps(1.0))).pixels)


@pytest.mark.parametrize(
    ("probe", "labels", "line", "colours"),
    [
        (Saliency(images=None), True, "maps of the true class", "magnitude"),
        (Saliency(), False, "maps of the class that was predicted in the epoch", "magnitude"),
        (
            Attribution(["gradient"]),
            True,
            "maps of the class that was predicted in the epoch",
            "raises the score",
        ),
        (Attribution(["gradient"], targets="both"), True, "maps of the true class", "raises the score"),
        (Attribution(["gradient"], targets=2), True, "maps of eel", "raises the score"),
        (Occlusion(), True, "maps of the true class", "lowers score or probability"),
    ],
)
def test_probes_say_of_which_class_the_maps_of_their_films_are(
    probe: ProbeCallback, labels: bool, line: str, colours: str
):
    own = Sample(
        torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([2, 0]) if labels else None,
        ("cat", "dog", "eel"),
        torch.device("cpu"),
    )
    probe.sample = own
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    seen = probe.observe(network, own, own.each())
    for label in ("start", "1"):
        probe.film.add(label, probe.frames(seen, {}))
    found = words(strip_of(probe.film).pixels)
    assert [shown for shown in found if shown.startswith("maps of")] == [line]
    assert sum(colours in shown for shown in found) == 1


def test_a_film_says_which_channels_it_shows():
    own = Film()
    for label in ("start", "1"):
        own.add(label, maps(1.0), "shown as red channel 3")
    again = Film()
    again.load_state_dict(own.state_dict())
    assert words(strip_of(again).pixels).count("shown as red channel 3") == 1


def test_a_film_of_maps_from_a_checkpoint_is_the_same(tmp_path: Path):
    own = film(maps(0.5), maps(1.0), scale="epoch")
    torch.save(own.state_dict(), tmp_path / "film.pt")
    again = Film()
    again.load_state_dict(torch.load(tmp_path / "film.pt", weights_only=True))
    assert torch.equal(strip_of(again).pixels, strip_of(own).pixels)
    assert strip_of(again).animation() == strip_of(own).animation()
    # what a probe is told wins over the checkpoint
    told = Film(scale="film")
    told.load_state_dict(own.state_dict())
    assert "one scale for all epochs" in " ".join(words(strip_of(told).pixels))


@pytest.mark.parametrize(
    "broken", [{"levels": {"gradient": 1}}, {"strongest": {}}, {"looks": {"gradient": "x"}}]
)
def test_damaged_maps_of_a_checkpoint_are_left_out(broken: dict):
    own = film(maps(0.5), maps(1.0), maps(1.0))
    own.frames[1][2]["a"] |= broken
    assert "without 1 of 3 columns, which cannot be read" in words(strip_of(own).pixels)
    own.images.clear()
    assert own.strip() is None


def test_a_value_that_is_not_finite_is_shown():
    bad = MAP.clone()
    bad[0, 3, 4] = float("nan")
    strip = strip_of(film(maps(1.0, occlusion=bad), maps(1.0, occlusion=bad)))
    magenta = torch.tensor([255, 0, 255], dtype=torch.uint8)[:, None, None]
    assert (strip.pixels == magenta).all(0).any()


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (Saliency, {}),
        (Attribution, {"methods": ["gradient", "grad_cam"]}),
        (Occlusion, {}),
        (Activations, {"layers": ["features.0", "head"]}),
    ],
)
def test_films_of_probes_show_photographs_and_one_scale(
    kind: Callable[..., ProbeCallback], option: dict, tmp_path: Path
):
    for scale, note in (("film", "one scale for all epochs"), ("epoch", "each epoch has its own scale")):
        probe = kind(images=2, film_scale=scale, **option, **SCALE)
        somebody.quiet(tmp_path / scale, probe, max_epochs=1).fit(
            somebody.Theirs(), somebody.loader(8), somebody.loader(9)
        )
        found = words(strip_of(probe.film).pixels)
        assert {"true red", "true green"} <= {*found}
        assert sum(line.startswith("pred ") for line in found) == (0 if kind is Activations else 4)
        assert note in " ".join(found)
        assert (sum(line.startswith("max ") for line in found) >= 2) == (scale == "film")


def test_an_animation_keeps_the_colours_of_its_scale():
    generator = torch.Generator().manual_seed(0)
    dark = torch.randint(20, 100, (3, 300, 300), generator=generator, dtype=torch.uint8)
    bar = heat(torch.linspace(0, 1, 120).expand(11, -1), top=1.0)
    file = animated([("start", {"a": dark}), ("1", {"a": dark})], feet=[bar, bar])
    with Image.open(io.BytesIO(file)) as animation:
        shown = from_pil(animation).flatten(1).unique(dim=1).float()
    nearest = torch.cdist(bar.flatten(1).float().T, shown.T).amin(1)
    assert nearest.max() < 30
