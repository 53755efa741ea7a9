"""A launched process does not wait for a first one that was killed."""

import os
import subprocess
import sys

import pytest

from fulgurite.cli.orphaned_processes import LAUNCHER, end_with_launcher

# the other process of two, which no store answers
WAITS = """
from datetime import timedelta
from torch.distributed import TCPStore
from fulgurite.cli.orphaned_processes import end_with_launcher
end_with_launcher()
TCPStore("127.0.0.1", 9, 2, False, timedelta(seconds=3))
"""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["dead", "parent", "further up"])
def test_it_ends_when_its_launcher_has_died(launcher):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    died, launcher = launcher == "dead", {"dead": gone.pid, "parent": os.getpid()}.get(launcher, os.getppid())
    environment = os.environ | {"LOCAL_RANK": "1", LAUNCHER: str(launcher)}
    done = subprocess.run(
        [sys.executable, "-c", WAITS], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 1
    assert ("has ended" in done.stderr) == died
    assert ("Traceback" in done.stderr) != died


def test_the_first_process_launches_itself(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv(LAUNCHER, "1")
    end_with_launcher()
    assert os.environ[LAUNCHER] == str(os.getpid())
    monkeypatch.setenv("LOCAL_RANK", "0")  # as Lightning does once it has launched the others
    end_with_launcher()
    assert os.environ[LAUNCHER] == str(os.getpid())
