"""Shards to train and to validate on."""

import pytest
from tar_shards import fill


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "data" / "train", (10, 12, 6, 10))
    fill(tmp_path / "data" / "val", (5, 4), first=100)
    return tmp_path / "data"
