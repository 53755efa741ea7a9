"""The command in a separate process, which can kill itself at a chosen moment; the files that it leaves."""

import contextlib
import io
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import somebody
from processes import FORKING, brief

PHASES = ("training", "validation", "probing", "pictures", "checkpoint")
RUNS = {
    "digits": ["--epochs", "3", "--size", "16", "--batch_size", "256"],
    "finetune_digits": [
        *("--strategy", "gradual", "--epochs", "4", "--every", "2", "--every_stage", "1", "--per_class", "4"),
        *("--source_epochs", "1", "--size", "8", "--batch_size", "8"),
    ],
}
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


def command(
    words: list[str], folder: Path, *, kill: tuple[str, int] | None = None, disk: Path | None = None
) -> tuple[int, str]:
    """Exit status, and what was printed, of the command in the folder; killed at the nth call in a phase.

    With a disk, that is filled there instead, by a file `filler`.

    Where it is not, `calls.json` says how many calls there were in each.
    """
    process = FORKING.Process(target=_child, args=(words, str(folder), kill, disk))
    process.start()
    process.join(240)
    assert process.exitcode is not None, "the command hangs"
    return process.exitcode, (folder / "output.txt").read_text()


def whole(recipe: str, folder: Path) -> dict[str, int]:
    """The run that nothing interrupts, and how many calls there are in each phase."""
    folder.mkdir()
    status, printed = command(["fit", recipe, *RUNS[recipe], "--folder", "run", *QUIET], folder)
    assert status == 0, printed
    return json.loads((folder / "calls.json").read_text())


def _child(words: list[str], folder: str, kill: tuple[str, int] | None, disk: Path | None) -> None:
    os.chdir(folder)
    import torch

    from fulgurite.cli.command import main

    torch.set_num_threads(1)
    brief()
    calls: Counter = Counter()

    def reached(phase: str) -> bool:
        calls[phase] += 1
        return kill == (phase, calls[phase] - 1)

    watch(reached, lambda: os.kill(os.getpid(), signal.SIGKILL) if disk is None else fill(disk))
    output = Path("output.txt").open("w", buffering=1)  # noqa: SIM115
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = main(words)
    Path("calls.json").write_text(json.dumps(calls))
    os._exit(status)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        for size in (2**20, 2**10, 1):
            with contextlib.suppress(OSError):
                while file.write(b"0" * size) == size:
                    pass


def hold(phase: str, call: int, held: Path) -> None:
    """At the nth call in a phase, make a file, and wait for a signal."""
    calls: Counter = Counter()

    def reached(now: str) -> bool:
        calls[now] += 1
        return (now, calls[now] - 1) == (phase, call)

    def wait() -> None:
        held.touch()
        time.sleep(60)
        raise AssertionError("no signal came")

    watch(reached, wait)


def watch(reached: Callable[[str], bool], die: Callable[[], None]) -> None:
    """Ask at each call in a phase whether the moment is reached, and die in it."""
    import torch

    from fulgurite.callbacks.boards import projector
    from fulgurite.callbacks.framework import observation
    from fulgurite.callbacks.framework.artifacts import Picture
    from fulgurite.models.classifier import Classifier

    def dying(phase: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            now = reached(phase)
            found = function(*args, **kwargs)
            if now:
                die()
            return found

        return call

    Classifier.training_step = dying("training", Classifier.training_step)
    Classifier.validation_step = dying("validation", Classifier.validation_step)
    observation.shard = dying("probing", observation.shard)
    Picture.encoded = dying("pictures", Picture.encoded)
    projector.write_atomic = dying("projector", projector.write_atomic)
    save, replace = torch.save, Path.replace

    def half(state: object, file: io.IOBase, **how: object) -> None:
        # tensors go through torch.save too where they are pickled
        if isinstance(state, dict) and "optimizer_states" in state and reached("checkpoint"):
            whole = io.BytesIO()
            save(state, whole, **how)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            die()
        save(state, file, **how)

    def renamed(path: Path, target: Path) -> Path:
        # before the rename, and after it
        if Path(target).suffix == ".ckpt" and reached("checkpoint"):
            die()
        found = replace(path, target)
        if Path(target).suffix == ".ckpt" and reached("checkpoint"):
            die()
        return found

    torch.save, Path.replace = half, renamed


def moments(calls: dict[str, int], count: int, *, seed: int) -> list[tuple[str, int]]:
    """Random ones, none twice, the same number in each phase."""
    draw, each = random.Random(seed), count // len(PHASES)
    return [(phase, call) for phase in PHASES for call in draw.sample(range(calls[phase]), each)]


def differences(whole: Path, resumed: Path) -> list[str]:
    """What is not as in the run that nothing interrupted: weights, scores, counts, films, events, files."""
    found = []
    for which in ("last", "best"):
        one, other = (somebody.checkpoint(run, which) for run in (whole, resumed))
        found += [f"{which}: {part}" for part in one if not somebody.same(one[part], other.get(part))]
    for kind in (somebody.scalars, somebody.images):
        one, other = (_steps(kind(run)) for run in (whole, resumed))
        found += [
            f"{kind.__name__}: {tag}" for tag in one.keys() | other.keys() if one.get(tag) != other.get(tag)
        ]
    one, other = (_files(run) for run in (whole, resumed))
    return found + [f"file: {name}" for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


def _steps(events: dict) -> dict:
    """What can be compared with ==: times are not."""
    return {
        tag: [step for step, _ in value]
        if str(tag).startswith("seconds/")
        else getattr(value, "tolist", lambda v=value: v)()
        for tag, value in events.items()
    }


def _files(run: Path) -> dict[str, bytes]:
    """All others, but those that name a time or a folder."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.suffix not in (".ckpt", ".yaml") and "tfevents" not in path.name
    }
