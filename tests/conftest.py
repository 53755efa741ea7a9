"""Checks shapes and types in every room while the tests run, and finds the real data where there are any."""

import ctypes
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent))
import typecheck
from processes import brief

ROOMS = ["probes", "models", "callbacks", "data", "recipes", "cli"]
typecheck.install()
install_import_hook([f"fulgurite.{room}" for room in ROOMS], "typecheck.checked")

# small networks gain nothing by a second thread, and lose a hundredfold where the core is busy otherwise
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Tests use their own cache folder, also in processes that they start."""
    folder = tempfile.mkdtemp(prefix="fulgurite-cache-")
    os.environ["FULGURITE_CACHE"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    # in the background a shell lets Ctrl-C be ignored, also by the processes that tests start and interrupt
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Spare the collector of garbage the tests themselves: it takes a second to search all of them."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """What is left at the end is collected as before."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def memory_goes_back() -> Iterator[None]:
    """What a file's networks held goes back to the system, which the allocator would keep for later."""
    yield
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


@pytest.fixture(autouse=True, scope="module")
def brief_probes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trainings of recipes, and of the command, ask other things than how class images and t-SNE look."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name in ("cli", "recipes"):
            brief(patch.setitem)
        yield


@pytest.fixture
def brief_class_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the trainings of single tests elsewhere."""
    brief(monkeypatch.setitem)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real weights and images."""
    if not (folder := os.environ.get("FULGURITE_DATA")):
        pytest.skip("FULGURITE_DATA names no folder of real data")
    return Path(folder)
