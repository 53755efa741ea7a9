"""The manifest: only new and changed files are checked; a damaged one is rebuilt; nothing in it is run."""

import io
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from fulgurite.data import header_check
from fulgurite.data import manifest as manifests
from fulgurite.data.decoding import UnreadableImageError
from fulgurite.data.folder import Folder
from fulgurite.data.manifest import Manifest
from fulgurite.data.user_cache import cache_folder

CUT = "is truncated"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "manifests"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name in ("ants", "bees"):
        (folder / name).mkdir(parents=True)
        for index in range(6):
            noise = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(noise).save(folder / name / f"{index}.{'jpg' if index % 2 else 'png'}")
    return folder


@pytest.fixture
def looked_at(monkeypatch):
    """The names of the files that are opened for a check."""
    names = []
    plausible = header_check._plausible

    def watched(file, size):
        names.append("/".join(file.split("/")[-2:]))
        return plausible(file, size)

    monkeypatch.setattr(header_check, "_plausible", watched)
    return names


def listed(folder):
    return sorted(str(file) for file in folder.rglob("*.*"))


def cut(file):
    file.write_bytes(file.read_bytes()[:700])


def test_only_new_and_changed_files_are_checked(photos, cache, looked_at):
    assert Manifest(photos).check(listed(photos)) == {}
    assert len(looked_at) == 12
    looked_at.clear()
    assert Manifest(photos).check(listed(photos)) == {}
    assert looked_at == []
    cut(photos / "ants" / "1.jpg")
    Image.new("L", (8, 8)).save(photos / "bees" / "new.png")
    (photos / "bees" / "0.png").unlink()
    bad = Manifest(photos).check(listed(photos))
    assert sorted(looked_at) == ["ants/1.jpg", "bees/new.png"]
    assert [*bad] == [str(photos / "ants" / "1.jpg")]
    assert CUT in bad[str(photos / "ants" / "1.jpg")]
    looked_at.clear()
    assert Manifest(photos).check(listed(photos)) == bad
    assert looked_at == []


def test_what_is_mended_is_good_again(photos, cache):
    file = photos / "ants" / "1.jpg"
    whole = file.read_bytes()
    cut(file)
    assert len(Manifest(photos).check(listed(photos))) == 1
    file.write_bytes(whole)
    assert Manifest(photos).check(listed(photos)) == {}


def test_one_folder_has_one_manifest_however_it_is_called(photos, cache, looked_at, monkeypatch):
    Folder(photos, size=8)
    looked_at.clear()
    monkeypatch.chdir(photos)
    Folder(".", size=8)
    (photos.parent / "link").symlink_to(photos)
    Folder(photos.parent / "link", size=8)
    assert looked_at == []
    assert len(list(cache.iterdir())) == 1


def test_nothing_whole_is_decoded(photos, cache, monkeypatch):
    def decode(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    assert Folder(photos, size=8).classes == ("ants", "bees")


def pickled(file):
    content = io.BytesIO()
    np.savez(content, version=np.int64(1), names=np.array([Canary()], object), sizes=np.zeros(1), bad=0)
    file.write_bytes(content.getvalue())


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


def version(file):
    arrays = dict(np.load(file))
    np.savez(file, **{**arrays, "version": np.int64(99)})


def too_short(file):
    arrays = dict(np.load(file))
    np.savez(file, **{**arrays, "sizes": arrays["sizes"][:3]})


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("no manifest"),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-300]),
    "a pickle": lambda file: file.write_bytes(pickle.dumps(Canary())),
    "an array of pickles": pickled,
    "another version": version,
    "parts that do not fit": too_short,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_manifest_is_made_anew_with_a_line(photos, cache, damage, looked_at, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    printed = []
    monkeypatch.setattr(manifests, "rank_zero_info", printed.append)
    monkeypatch.setattr(manifests, "rank_zero_warn", printed.append)
    Manifest(photos).check(listed(photos))
    damage(next(cache.glob("*.npz")))
    looked_at.clear()
    assert Manifest(photos).check(listed(photos)) == {}
    assert len(looked_at) == 12
    assert "photos is rebuilt: " in printed[0]
    assert "\n" not in printed[0]
    assert not (tmp_path / "canary").exists()


def test_a_cache_that_cannot_be_written_is_done_without(photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"manifest .* cannot be written: Not a directory; the images"):
        assert Manifest(photos).check(listed(photos)) == {}


def test_errors_of_loading_are_known_at_the_next_start(photos, cache):
    file = photos / "ants" / "0.png"
    manifest = Manifest(photos)
    assert manifest.check(listed(photos)) == {}
    manifest.note(UnreadableImageError(file, "broken within"))
    manifest.note(UnreadableImageError(photos / "ants" / "1.jpg", "the disk failed", lasting=False))
    for _ in range(2):  # by the journal, then by the manifest
        assert Manifest(photos).check(listed(photos)) == {str(file): "broken within"}
        assert not list(cache.glob("*.bad"))
    os.utime(file, ns=(0, 0))
    assert Manifest(photos).check(listed(photos)) == {}


def test_lines_of_a_journal_that_are_none_are_passed_over(photos, cache):
    Manifest(photos).check(listed(photos))
    journal = next(cache.glob("*.npz")).with_suffix(".bad")
    lines = [
        "",
        "no json",
        "[" * 100_000,
        "[1, 2, 3, 4]",
        json.dumps(["ants/0.png", 1, 2, "of another time"]),
    ]
    journal.write_text("\n".join(lines) + '\n["ants/0')
    assert Manifest(photos).check(listed(photos)) == {}


@pytest.mark.parametrize("kind", ["gone", "pipe"])
def test_what_is_no_file_is_named_without_waiting(photos, cache, kind):
    file = photos / "ants" / "x.png"
    os.mkfifo(file) if kind == "pipe" else file.symlink_to("nowhere")
    reason = "it is not a regular file" if kind == "pipe" else "No such file or directory"
    assert Manifest(photos).check([*listed(photos)]) == {str(file): reason}


def test_unusual_names_are_recognised_again(photos, cache, looked_at):
    (photos / "ants" / os.fsdecode(b"\xff\n.png")).write_bytes((photos / "ants" / "0.png").read_bytes())
    for _ in range(2):
        assert Manifest(photos).check(listed(photos)) == {}
    assert len(looked_at) == 13


def test_few_odd_files_are_decoded_and_the_headers_of_all_are_read(photos, cache, monkeypatch):
    monkeypatch.setattr(header_check, "MOST_DECODED", 1)
    for name in ("1", "3", "5"):
        cut(photos / "ants" / f"{name}.jpg")
    (photos / "bees" / "5.jpg").write_text("no image")
    bad = Manifest(photos).check(listed(photos))
    assert [*bad] == [str(photos / "ants" / "1.jpg"), str(photos / "bees" / "5.jpg")]


def test_the_cache_lies_where_the_user_keeps_it(monkeypatch, tmp_path):
    monkeypatch.setenv("FULGURITE_CACHE", "here")
    assert str(cache_folder()) == "here"
    monkeypatch.delenv("FULGURITE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fulgurite"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "fulgurite"
