"""What probes cost, and what the budget leaves out, in words."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from fulgurite.callbacks.framework.budget import LAST, Budget
from fulgurite.callbacks.framework.probe import Probe

WIDE = 70  # characters of a list of probes; titles of pictures and `fit --dry-run` tell of each
_INCLUDED: ContextVar[str] = ContextVar(
    "included",
    default="a larger budget (budget=1, or None for no limit) includes them, and trainer.validate(model, "
    "data) runs all on the finished network",
)


@contextmanager
def included_by(words: str) -> Iterator[None]:
    """How probes that were left out are included, as the user of a block says it: by options of a command."""
    token = _INCLUDED.set(words)
    try:
        yield
    finally:
        _INCLUDED.reset(token)


def cost_in_words(probes: Sequence[Probe], budget: Budget | None, training: float | None = None) -> str:
    """What probes will take, and in a second line what a short run leaves out.

    Args:
        probes: all of them, after their runs before training.
        budget: of all that have one.
        training: seconds, by an estimate.
    """
    spent = sum(one.seconds for one in probes)
    words = f"probes: {len(probes)}, {spent:.1f} s so far"
    if budget is None:
        return f"{words}; no budget limits them (slowest: {listed(_seconds(probes), most=2)})"
    words += f"; then {100 * budget.share:.3g}% of the training time, and the last run of each"
    late, free = [one.name for one in probes if one.waits], [one.name for one in probes if one.budget is None]
    if training:
        # the last runs are as long as the first
        own = [one for one in probes if one.budget is not None]
        total = sum(one.seconds + (0.0 if one.waits else budget.cost(one.name)) for one in own)
        if late:  # those run while there is time
            total = max(total, max(LAST, budget.share) * training, budget.floor)
        else:
            total += budget.share * training
        which = "those with a budget" if free else "in all"
        words += f"; {which} at most about {total / (total + training):.0%} of the run"
    if free:
        words += f"; without limit: {some(free)}"
    fewer = at_fewer([one for one in probes if not one.waits])
    short = [*([fewer] if fewer else []), *([f"not before its end: {some(late)}"] if late else [])]
    return f"{words}\nas the training is short, {'; '.join(short)}" if short else words


def at_fewer(probes: Sequence[Probe]) -> str:
    """Which probes look at fewer than they could, and at how many of how many; nothing where none does."""
    limited = [f"{one.name} {one.limited_to}" for one in probes if one.limited_to]
    return f"on fewer: {some(limited)}" if limited else ""


def some(names: Sequence[str]) -> str:
    """The names, or the first of them and the number of the others."""
    shown = [place for place in range(len(names)) if len(", ".join(names[: place + 1])) <= WIDE]
    first = names[: max(1, len(shown))]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def what_it_took(probes: Sequence[Probe], estimating: float, run: float) -> str:
    """The time that probes took of a run of so many seconds; and which of them had none.

    Args:
        probes: all of them.
        estimating: seconds that estimating the training time took.
        run: seconds from its beginning to its end.
    """
    unseen = {one.name: one.seconds for one in probes if one.left_out and not one.memory.looks}
    spent = {name: took for name, took in _seconds(probes).items() if name not in unseen}
    spent |= {"estimating the training time": estimating, "measuring those left out": sum(unseen.values())}
    total = sum(spent.values())
    words = f"probes took {total:.1f} s of {run:.1f} s ({total / max(run, 1e-9):.0%}): {listed(spent)}"
    if out := [one.name for one in probes if one.left_out]:
        words += (
            f"\nleft out, as the training was too short for them: {', '.join(out)}; a longer training or "
            f"{_INCLUDED.get()}"
        )
    return words


def _seconds(probes: Sequence[Probe]) -> dict[str, float]:
    return {one.name: one.seconds for one in probes}


def listed(seconds: Mapping[str, float], *, most: int | None = None) -> str:
    """The longest first, as far as they count."""
    longest = sorted(seconds.items(), key=lambda item: -item[1])
    counts = [item for item in longest if item[1] > sum(seconds.values()) / 50] or longest[:1]
    return ", ".join(f"{name} {spent:.1f} s" for name, spent in counts[:most])
