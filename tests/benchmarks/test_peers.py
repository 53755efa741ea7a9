"""The libraries that benchmarks compare with: pinned, and reported where they are missing."""

import re
import tomllib
from pathlib import Path

from benchmarks import peers

ROOT = Path(__file__).parents[2]


def test_every_peer_is_pinned_to_one_version():
    lines = [line for line in (ROOT / "benchmarks/peers.txt").read_text().splitlines() if line[:1] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    names = {line.partition("==")[0].lower() for line in lines}
    assert {"captum", "foolbox", "grad-cam", "pyautoattack", "torch-lucent", "torchattacks"} <= names
    assert "torch" not in names  # ours is what they run with
    assert len(names) == len(lines)


def test_no_extra_asks_for_what_cannot_be_resolved():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # each was resolved together with the constraints when it was added
    extras = ["shards", "wandb", "onnx", "mlflow", "umap", "faiss", "docs", "dev"]
    assert list(project["optional-dependencies"]) == extras


def test_missing_peers_are_reported_with_the_command_that_installs_them():
    assert peers.missing("torch", "no_such_peer") == "no no_such_peer here: python -m benchmarks.peers"
    assert peers.missing("torch") == ""


def test_packages_of_the_environment_come_before_the_folder(tmp_path: Path, monkeypatch):
    ran = []
    monkeypatch.setattr(peers.subprocess, "run", lambda words, check: ran.append(words))
    peers.install(tmp_path)
    (words,) = ran
    assert words[words.index("--target") + 1] == str(tmp_path)
    assert "--no-deps" in words
    assert peers.sys.path.index(str(peers.FOLDER)) > max(
        place for place, path in enumerate(peers.sys.path) if path.endswith("site-packages")
    )
