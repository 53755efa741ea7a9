"""Atomic writes: a complete file or the old one, and never another file."""

import os
import stat
from pathlib import Path

import pytest

from fulgurite.probes.atomic import atomic_file, check_writable, write_atomic


def test_the_new_content_takes_the_place_of_the_old_and_nothing_else_is_left(tmp_path: Path):
    write_atomic(tmp_path / "file.txt", "old")
    write_atomic(tmp_path / "file.txt", "new: é")
    assert (tmp_path / "file.txt").read_bytes() == "new: é".encode()
    write_atomic(str(tmp_path / "file.txt"), b"\x00\r\n")
    assert (tmp_path / "file.txt").read_bytes() == b"\x00\r\n"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("neighbour", ["y.draft", ".y.csv.draft", "y.csv.tmp", ".y.csv.tmp", "y.tmp"])
def test_a_neighbour_of_any_name_stays(tmp_path: Path, neighbour: str):
    (tmp_path / neighbour).write_text("mine")
    write_atomic(tmp_path / "y.csv", "a,b\n")
    assert (tmp_path / neighbour).read_text() == "mine"


def test_the_content_is_on_the_disk_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append("sync")
        sync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_atomic(tmp_path / "file.txt", "new")
    assert done == ["sync", "rename", "sync"]


def test_what_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    write_atomic(tmp_path / "file.txt", "old")

    def broken_off() -> None:
        with atomic_file(tmp_path / "file.txt") as file:
            file.write(b"half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert (tmp_path / "file.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_atomic(tmp_path / "file.txt", "old")
    opened = Path.open

    def full(self: Path, mode: str = "r"):
        file = opened(self, mode)
        os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "file.txt", "new")
    monkeypatch.undo()
    assert (tmp_path / "file.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "file.txt").symlink_to(tmp_path / "elsewhere")
    write_atomic(tmp_path / "file.txt", "new")
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert not (tmp_path / "file.txt").is_symlink()


def test_a_name_of_255_bytes_and_the_usual_permissions(tmp_path: Path):
    mask = os.umask(0o022)
    os.umask(mask)
    write_atomic(tmp_path / ("é" * 125 + ".json"), "{}")
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


def test_a_check_touches_nothing_and_reports_unwritable_paths(tmp_path: Path):
    for name in ("y.csv", ".y.csv.draft", "y.tmp"):
        (tmp_path / name).write_text("mine")
    check_writable(tmp_path / "y.csv")
    check_writable(tmp_path / "new.csv")
    assert {file.name for file in tmp_path.iterdir()} == {"y.csv", ".y.csv.draft", "y.tmp"}
    assert {file.read_text() for file in tmp_path.iterdir()} == {"mine"}
    for wrong in (tmp_path, tmp_path / "nowhere" / "y.csv", tmp_path / ("x" * 256)):
        with pytest.raises(OSError, match=r"directory|too long"):
            check_writable(wrong)
