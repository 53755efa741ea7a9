"""Makes the slow reference implementations of this folder importable; captum's maps to compare with."""

import sys
import warnings
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def captum():
    """The result of a method of captum, without the warnings that it gives at every call."""
    methods = pytest.importorskip("captum.attr")

    def printed(method, *made_of, **asked):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(methods, method)(*made_of).attribute(**asked).detach()

    return printed
