"""What probes cost, and what the budget leaves out, in words."""

from collections.abc import Mapping, Sequence

from fulgurite.callbacks.framework.budget import Budget
from fulgurite.callbacks.framework.probe import Probe


def cost_in_words(probes: Sequence[Probe], budget: Budget | None) -> str:
    """What the probes have taken before training, what limits them, and what a short run leaves out."""
    spent = {one.name: one.seconds for one in probes}
    late = [one.name for one in probes if one.waits]
    words = [
        f"probes: {len(probes)}, which took {sum(spent.values()):.1f} s before training, with loading "
        f"and measuring ({listed(spent)})"
    ]
    if budget is None:
        words.append("no budget limits them")
    else:
        free = [one.name for one in probes if one.budget is None]
        others = f" without {', '.join(free)}, which have no budget," if free else ""
        words.append(
            f"in all{others} they may take {100 * budget.share:.3g}% of the training time, besides their "
            "runs before training and after the last epoch"
        )
    short = [f"not before training: {', '.join(late)}"] if late else []
    short += [fewer] if (fewer := at_fewer(probes)) else []
    if short:
        words.append(f"as the training is short, {'; '.join(short)}")
    return "; ".join(words)


def at_fewer(probes: Sequence[Probe]) -> str:
    """Which probes look at fewer than they could, and at how many of how many; nothing where none does."""
    limited = [f"{one.name} {one.limited_to}" for one in probes if one.limited_to]
    return f"on fewer: {', '.join(limited)}" if limited else ""


def what_it_took(probes: Sequence[Probe], estimating: float, run: float) -> str:
    """The time that probes took of a run of so many seconds; and which of them had none.

    Args:
        probes: all of them.
        estimating: seconds that estimating the training time took.
        run: seconds from its beginning to its end.
    """
    spent = {one.name: one.seconds for one in probes} | {"estimating the training time": estimating}
    total = sum(spent.values())
    words = f"probes took {total:.1f} s of {run:.1f} s ({total / max(run, 1e-9):.0%}): {listed(spent)}"
    if out := [one.name for one in probes if one.left_out]:
        words += (
            f"\nleft out, as the training was too short for them: {', '.join(out)}; a longer training or a "
            "larger budget (--budget 1, or null for no limit) includes them, and `fulgurite probe RUN` runs "
            "all on the finished network"
        )
    return words


def listed(seconds: Mapping[str, float]) -> str:
    """The longest first, as far as they count."""
    longest = sorted(seconds.items(), key=lambda item: -item[1])
    counts = [item for item in longest if item[1] > sum(seconds.values()) / 50] or longest[:1]
    return ", ".join(f"{name} {spent:.1f} s" for name, spent in counts)
