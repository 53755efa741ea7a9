"""Runs a check in two processes of one run."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import importlib, sys
import torch.distributed as dist
rank, store, script = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
importlib.import_module(script).check()
dist.destroy_process_group()
"""


def in_two_processes(script: str, folder: Path) -> None:
    """Run a script's `check()` in two processes that know of each other; neither may fail."""
    paths = [str(Path(script).parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-W", "error", "-c", CODE]
    running = [
        subprocess.Popen(
            [*command, str(rank), str(folder / "store"), Path(script).stem],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        for rank in range(2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
