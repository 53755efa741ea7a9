"""Folders of every kind: each image is found once, nothing blocks, and errors are one line."""

import os
from pathlib import Path

import pytest
from folder_kinds import KINDS, ODD, link, painted, two_classes

from fulgurite.data import image_files
from fulgurite.data.folder import Folder
from fulgurite.data.image_files import files_below, images_below, printable

pytestmark = pytest.mark.timeout(60)


def tree(path: Path) -> list[str]:
    """All files and folders below it, without following links."""
    return sorted(
        str(Path(place, name)) for place, *names in os.walk(path) for part in names for name in part
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_folder_of_any_kind_is_read_or_refused(kind, tmp_path):
    path = tmp_path / "data"
    kind(path)
    before, wanted = tree(tmp_path), KINDS[kind]
    if isinstance(wanted, str):
        with pytest.raises(ValueError, match=wanted) as refused:
            Folder(path, on_bad_image="raise")
        assert "\n" not in str(refused.value)
    else:
        data = Folder(path, size=8, verify=wanted < 1000)
        found = {part: [file for files in data.files[part].values() for file in files] for part in data.files}
        assert sum(map(len, found.values())) == wanted
        # none is trained on and judged by
        train = {os.path.realpath(file) for file in found["train"]}
        assert len(train) == len(found["train"])
        assert train.isdisjoint(os.path.realpath(file) for file in found["val"])
        data.setup()
        assert data.val[0][0].shape == (3, 8, 8)
        " ".join(data.classes).encode()
        assert not any("\n" in name for name in data.classes)
    assert tree(tmp_path) == before


def test_a_file_is_listed_by_the_path_without_links(tmp_path):
    two_classes(tmp_path / "data")
    link(tmp_path / "data" / "0_before_all.png", "ants/0.png")
    link(tmp_path / "data" / "a", "bees")
    found = images_below(tmp_path / "data")
    assert found == sorted((tmp_path / "data").glob("[ab][en]*/?.png"))
    assert len(found) == 10


def test_what_is_no_image_is_listed_but_no_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "notes.txt").write_text("six legs")
    link(tmp_path / "gone", "nowhere")
    painted(tmp_path / "deep" / "x.png")
    assert [file.name for file in files_below(tmp_path)] == ["x.png", "gone", "notes.txt", "pipe"]
    assert [file.name for file in images_below(tmp_path)] == ["x.png"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    two_classes(tmp_path)
    listed = os.scandir

    def scandir(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(image_files.os, "scandir", scandir)
    (tmp_path / "ants" / "secret").mkdir()
    with pytest.raises(ValueError, match=r"ants/secret cannot be listed: Permission denied"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\u732b \U0001f638\u200d\U0001f680 a\u0301.png", None),
        ('a b, "c"; d\\n.png', None),
        ("a\nb\tc\x1b\u2028", r"a\nb\tc\x1b\u2028"),
        (os.fsdecode(b"\xff caf\xc3\xa9 \xe9"), r"\xff café \xe9"),
        ("\ud800", r"\ud800"),
    ],
    ids=ascii,
)
def test_a_name_is_shown_as_it_is_where_that_is_a_line_of_text(name, shown):
    assert printable(name) == (name if shown is None else shown)


def test_odd_names_are_shown_apart():
    shown = [printable(name) for name in ODD]
    assert len(set(shown)) == len(ODD)
    "".join(shown).encode()
    assert not any("\n" in name for name in shown)
