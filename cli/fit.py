"""Command: train a recipe into a fresh folder, or resume a run."""

from collections.abc import Sequence
from pathlib import Path

from fulgurite.callbacks.framework.cost_words import included_by
from fulgurite.cli import options
from fulgurite.cli.dry_run import described
from fulgurite.cli.errors import mistakes
from fulgurite.cli.interruptions import requeued
from fulgurite.cli.known_recipes import listed, recipe_of
from fulgurite.cli.lightning_messages import hush
from fulgurite.cli.run_lock import claimed, is_main_process, name_others
from fulgurite.cli.training import train
from fulgurite.probes.style import drawn_in
from fulgurite.recipes import calibration_report, plain_values
from fulgurite.recipes import run as runs

MOST_EPOCHS, HIGHEST_SEED = 1_000_000, 2**32 - 1
INCLUDED = (
    "a larger budget (--budget 1, or null for no limit) includes them, and `fulgurite probe RUN` runs all on "
    "the finished network"
)


def run(verb: str, words: Sequence[str]) -> int:
    """Train a recipe into a fresh folder, or resume a run in its own."""
    if not words or words[0].startswith("-"):
        print(listed(verb))
        return 0
    hush()
    name, rest = words[0], words[1:]
    build = recipe_of(name)
    resumed = _resumed(name, rest)
    again = None if resumed else requeued(runs.ROOT / name, words, _after("--folder", rest))
    resumed = resumed or again
    before = runs.read(resumed) if resumed else None
    args = options.for_fit(name, build, rest, before)
    if resumed and before is not None:
        runs.check_goes_on(before, args.knobs)
        plain_values.check_inside(resumed)
    if resumed and args.folder and not again:
        raise ValueError(f"a run is resumed in its own folder, {resumed}; leave out --folder {args.folder}")
    if args.knobs.get("epochs", 1) > MOST_EPOCHS:
        raise ValueError(f"--epochs {args.knobs['epochs']}; wanted at most {MOST_EPOCHS}")
    if not 0 <= args.knobs.get("seed", 0) <= HIGHEST_SEED:
        raise ValueError(f"--seed {args.knobs['seed']}; wanted a whole number from 0 to {HIGHEST_SEED}")
    if args.folder == "":
        raise ValueError("--folder without a name; wanted a folder for the run")
    limits = ("max_epochs", "max_steps", "limit_train_batches")
    if idle := [limit for limit in limits if args.trainer.get(limit) == 0]:
        raise ValueError(f"--trainer.{idle[0]} 0 trains nothing; wanted at least 1")
    if args.dry_run:
        print(described(build(**args.knobs), args.trainer))
        return 0
    with claimed(resumed or args.folder, root=runs.ROOT / name) as own:
        if not resumed and list(own.folder.glob("checkpoints/*.ckpt")):
            raise ValueError(
                f"{own.folder} holds a run already; go on with it by --resume {own.folder}, or choose "
                "another --folder"
            )
        noted = (own.folder / runs.FILE).exists()
        if not resumed and not noted and is_main_process():
            found = (runs.TESTED, calibration_report.FILE, calibration_report.PAGE)
            name_others(own.folder, ours=(*found, f"{name}.json", f"{name}.safetensors"))
        try:
            with drawn_in(args.theme), included_by(INCLUDED):
                train(name, build, args, own.folder, words, resumed=bool(resumed))
        except mistakes():
            if not list(own.folder.glob("checkpoints/*.ckpt")):
                own.remove(content=True)
                if not noted:  # nothing of the run stays in an existing folder
                    (own.folder / runs.FILE).unlink(missing_ok=True)
            raise
    return 0


def _resumed(name: str, words: Sequence[str]) -> Path | None:
    """The folder after `--resume`: its run sets the other defaults, so it is read first."""
    if (folder := _after("--resume", words)) is None:
        return None
    if (run := runs.read(Path(folder))).recipe != name:
        raise ValueError(f"{folder} is a run of {run.recipe!r}, not of {name!r}")
    return Path(folder)


def _after(option: str, words: Sequence[str]) -> str | None:
    """The value of the last occurrence of an option."""
    found = None
    for place, word in enumerate(words):
        if word.startswith(f"{option}="):
            found = word.removeprefix(f"{option}=")
        elif word == option and place + 1 < len(words):
            found = words[place + 1]
    return found
