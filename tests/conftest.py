"""Checks shapes and types in every room while the tests run, and finds the real data where there are any."""

import gc
import inspect
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent))
import typecheck

ROOMS = ["probes", "models", "callbacks", "data", "recipes", "cli"]
typecheck.install()
install_import_hook([f"fulgurite.{room}" for room in ROOMS], "typecheck.checked")

# small networks gain nothing by a second thread, and lose a hundredfold where the core is busy otherwise
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """What the tests keep goes into a cache folder of their own, also in processes that they start."""
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
    """What is left at the end is collected as ever."""
    gc.unfreeze()


@pytest.fixture
def brief_class_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Class images of 8 steps, for trainings of which other things are asked than how these look."""
    from fulgurite.callbacks.class_images import ClassImages

    monkeypatch.setitem(inspect.unwrap(ClassImages.__init__).__kwdefaults__, "steps", 8)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real weights and images."""
    if not (folder := os.environ.get("FULGURITE_DATA")):
        pytest.skip("FULGURITE_DATA names no folder of real data")
    return Path(folder)
