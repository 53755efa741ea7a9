"""Image files of every kind: good ones are read correctly, others raise a clear error, and none runs code."""

import os
import pickle
import re
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from image_kinds import BAD, EPS, GOOD, PICTURE, SMALL, chunk, png
from PIL import EpsImagePlugin, Image
from torchvision.transforms import v2

from fulgurite.data.crops import FRAMINGS
from fulgurite.data.decoding import FORMATS, UnreadableImageError, opened, read_image, upright
from fulgurite.data.folder import Folder

# Pillow warns of damage that it can do without
pytestmark = [pytest.mark.timeout(60), pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_read_right(name, tmp_path):
    file = tmp_path / name
    file.write_bytes(GOOD[name]())
    for channels in (1, 3):
        image = read_image(file, channels=channels)
        assert (image.mode, image.size) == ("L" if channels == 1 else "RGB", (40, 30))
        shades = np.asarray(image, float)
        assert shades[:, :18].mean() == pytest.approx(0, abs=2)  # the edge is soft in JPEG
        assert shades[:, 22:].mean() == pytest.approx(200, abs=4)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", SMALL)
def test_an_image_of_extreme_proportions_is_framed(name, framing, tmp_path):
    file = tmp_path / name
    file.write_bytes(SMALL[name]())
    framed = FRAMINGS[framing](32)(read_image(file, channels=3))
    assert framed.shape == (3, 32, 32)
    np.testing.assert_allclose(framed.numpy(), 200 / 255, atol=1 / 255)


@pytest.mark.parametrize("size", [(2000, 50), (50, 2000), (1999, 49), (49, 1998)], ids=str)
def test_the_middle_is_what_it_is_with_the_ends(size):
    coarse = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8), np.uint8)
    image = Image.fromarray(coarse).resize(size)
    whole = v2.Compose([v2.Resize(55), v2.CenterCrop(48), v2.PILToTensor()])(image) / 255
    # the two grids may lie part of a pixel apart
    assert (FRAMINGS["middle"](48)(image) - whole).abs().mean() < 0.035
    shifted = image.crop((16, 0, *size) if size[0] > size[1] else (0, 16, *size))
    assert (FRAMINGS["middle"](48)(shifted) - whole).abs().mean() > 0.06


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_sentence(name, tmp_path):
    make, why = BAD[name]
    file = tmp_path / name
    file.write_bytes(make())
    with pytest.raises(UnreadableImageError) as refused:
        read_image(file, channels=3)
    assert why in refused.value.reason
    assert str(refused.value) == f"{file} cannot be read as an image: {refused.value.reason}"
    assert re.fullmatch(r"[ -~]{5,250}", refused.value.reason)
    # loading processes send it
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "La", "RGBa"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", [*MODES, "I;16", "I;16L", "I;16B", "I", "F"])
def test_every_mode_of_pillow_is_taken(mode, channels):
    if mode in ("I", "F") or mode.startswith("I;16"):
        scaled = np.asarray(PICTURE) / 255 if mode == "F" else np.asarray(PICTURE).astype(np.int32) * 257
        image = Image.fromarray(scaled.astype(np.float32 if mode == "F" else np.int32))
        image = image if mode in ("I", "F") else image.convert(mode)
    else:
        steps = {"PA": ["LA"], "HSV": ["RGB"], "LAB": ["RGB"], "La": ["LA"], "RGBa": ["RGBA"]}
        image = PICTURE
        for step in [*steps.get(mode, []), mode]:
            image = image.convert(step)
    assert image.mode == mode
    shades = np.asarray(upright(image, channels=channels), float)
    assert shades[:, :20].mean() == pytest.approx(0, abs=1)
    assert shades[:, 20:].mean() == pytest.approx(200, abs=2)


def test_sixteen_bits_of_eight_bit_shades_are_those_shades(tmp_path):
    shades = np.arange(256, dtype=np.uint16)[None]
    Image.fromarray(shades * 257).save(tmp_path / "x.png")
    assert (np.asarray(read_image(tmp_path / "x.png", channels=1)) == shades).all()


def test_a_transparent_shade_of_sixteen_bits_is_laid_on_white(tmp_path):
    Image.fromarray(np.array([[0, 30_000, 60_000]], np.uint16)).save(tmp_path / "x.png", transparency=30_000)
    assert np.asarray(read_image(tmp_path / "x.png", channels=1)).tolist() == [[0, 255, 233]]


def test_floats_may_overshoot_by_less_than_half_a_shade(tmp_path):
    Image.fromarray(np.array([[-0.0009, 1.0009]], np.float32)).save(tmp_path / "x.tif")
    assert np.asarray(read_image(tmp_path / "x.tif", channels=1)).tolist() == [[0, 255]]


def test_no_program_runs_on_a_file(tmp_path, monkeypatch):
    """Pillow passes PostScript, with any suffix, to Ghostscript; this file leaves a trace if it is run."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/canary\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "photo.jpg").write_bytes(EPS)
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "photo.jpg", channels=3)
    assert not (tmp_path / "canary").exists()
    with Image.open(tmp_path / "photo.jpg") as image, pytest.raises((OSError, ValueError)):
        image.load()
    assert (tmp_path / "canary").exists()  # so the trap works
    assert "EPS" not in FORMATS


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "nothing", "loop"])
def test_what_is_no_regular_file_is_not_opened(kind, tmp_path, monkeypatch):
    place = tmp_path / "x.png"
    {
        "fifo": lambda: os.mkfifo(place),
        "device": lambda: place.symlink_to("/dev/zero"),
        "folder": place.mkdir,
        "nothing": lambda: place.symlink_to("nowhere"),
        "loop": lambda: place.symlink_to(place),
    }[kind]()
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(UnreadableImageError) as refused:
        read_image(place, channels=3)
    assert refused.value.reason


def test_all_good_kinds_are_one_folder_and_no_bad_one_passes(tmp_path):
    for name, make in {**GOOD, **SMALL}.items():
        for one in ("ants", "bees"):
            (tmp_path / one).mkdir(exist_ok=True)
            (tmp_path / one / name).write_bytes(make())
    data = Folder(tmp_path, size=16, val_share=0.1)
    data.setup()
    assert len(data.train) + len(data.val) == 2 * len(GOOD) + 2 * len(SMALL)
    assert {image.shape for part in (data.train, data.val) for image, _ in part} == {(3, 16, 16)}
    for name, (make, _) in BAD.items():
        (tmp_path / "ants" / name).write_bytes(make())
    # first and last bytes tell of most, loading of the others, and the manifest of all at the next start
    data = Folder(tmp_path, size=16, val_share=0.1, augment=False)
    assert len(data._bad) > len(BAD) / 2
    data.setup()
    images = [image for part in (data.train, data.val) for image, _ in part]
    assert len(images) == 2 * len(GOOD) + 2 * len(SMALL) + len(BAD)
    assert all(image.shape == (3, 16, 16) for image in images)
    with pytest.raises(ValueError, match=f"{len(BAD)} of {2 * len(GOOD) + 2 * len(SMALL) + len(BAD)} images"):
        Folder(tmp_path, on_bad_image="raise")
    for name in BAD:
        (tmp_path / "ants" / name).unlink()
    # one that is not looked at beforehand is named when its turn comes
    (tmp_path / "bees" / "bad.png").write_text("no image")
    data = Folder(tmp_path, size=16, verify=False, on_bad_image="raise", val_share=0.01)
    data.setup()
    with pytest.raises(UnreadableImageError, match=r"bad\.png cannot be read"):
        list(data.train)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_a_damaged_file_is_read_or_refused(name, tmp_path):
    raw = np.frombuffer(GOOD[name](), np.uint8)
    generator = np.random.default_rng(0)
    for number in range(60):
        damaged = raw.copy()
        reach = min(len(raw), 200) if number % 2 else len(raw)
        places = generator.integers(0, reach, 1 + number % 5)
        damaged[places] = generator.integers(0, 256, len(places))
        (tmp_path / name).write_bytes(damaged.tobytes())
        # whatever else is raised fails the test
        with suppress(UnreadableImageError):
            assert read_image(tmp_path / name, channels=3).mode == "RGB"
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_large_photograph_is_opened_without_a_warning_of_pillow(tmp_path):
    file = tmp_path / "large.png"
    file.write_bytes(png(10_000, 10_000, chunk(b"IDAT", zlib.compress(bytes(1 << 10)))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with opened(file) as image:
            assert image.size == (10_000, 10_000)
