"""Separate processes for tests, forked from one that has done the slow imports."""

import inspect
import operator
import os
import runpy
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from subprocess import CompletedProcess

FORKING = get_context("forkserver")
FORKING.set_forkserver_preload(["lightning.pytorch", "torch.utils.tensorboard", "fulgurite.cli.command"])


def brief(put: Callable[[dict, str, int], None] = operator.setitem) -> None:
    """Class images of 8 steps and the shortest t-SNE that there is, for trainings that ask other things."""
    from fulgurite.callbacks.class_images import ClassImages
    from fulgurite.probes.representation.projections import tsne

    put(inspect.unwrap(ClassImages.__init__).__kwdefaults__, "steps", 8)
    put(inspect.unwrap(tsne).__kwdefaults__, "steps", 250)


class Script:
    """A script that runs as `python -W WARN SCRIPT WORDS` would; `check` asks for its `check()` instead."""

    def __init__(
        self,
        script: str | Path,
        *words: object,
        warn: str = "ignore",
        check: bool = False,
        printed: Path | None = None,
        **more: str,
    ):
        self.words = [str(script), *map(str, words)]
        self.printed = printed or Path(tempfile.mkdtemp(prefix="fulgurite-process-"))
        given = (self.words, warn, check, {**os.environ, **more}, self.printed)
        self.process = FORKING.Process(target=_run, args=given)
        self.process.start()

    def ended(self, timeout: float = 240) -> CompletedProcess[str]:
        """Its output, once it has ended."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"{self.words} had not ended after {timeout} s")
        out, err = ((self.printed / name).read_text() for name in ("out", "err"))
        return CompletedProcess(self.words, self.process.exitcode, out, err)


def _run(words: list[str], warn: str, check: bool, environment: dict[str, str], printed: Path) -> None:
    for number, name in enumerate(("out", "err"), 1):
        with (printed / name).open("ab") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    if "LOCAL_RANK" in environment:  # Lightning reads it when it is imported, which was before
        from lightning.pytorch.utilities import rank_zero_only

        rank_zero_only.rank = int(environment["LOCAL_RANK"])  # pyright: ignore[reportFunctionMemberAccess]
    warnings.resetwarnings()
    warnings.simplefilter(warn)  # pyright: ignore[reportArgumentType]
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    if not check:
        runpy.run_path(words[0], run_name="__main__")
        return
    import torch.distributed as dist

    place = f"file://{environment['STORE']}"
    dist.init_process_group("gloo", init_method=place, rank=int(environment["LOCAL_RANK"]), world_size=2)
    runpy.run_path(words[0])["check"]()
    dist.destroy_process_group()


def two_of(script: str | Path, *words: object, warn: str = "ignore") -> CompletedProcess[str]:
    """A script that trains in two processes, both started here as on a cluster; returns their outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    first = Script(script, *words, warn=warn, LOCAL_RANK="0", **place)
    second = Script(script, *words, warn=warn, printed=first.printed, LOCAL_RANK="1", **place)
    *_, other, done = second.ended(), first.ended()
    return CompletedProcess(done.args, done.returncode or other.returncode, done.stdout, done.stderr)


def in_two_processes(script: str, folder: Path) -> None:
    """Run a script's `check()` in two processes that know of each other; neither may fail."""
    store = str(folder / "store")
    both = [Script(script, warn="error", check=True, LOCAL_RANK=str(rank), STORE=store) for rank in range(2)]
    for done in [one.ended(120) for one in both]:
        assert done.returncode == 0, done.stderr
