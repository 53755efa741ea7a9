"""When a probe looks: the step, the epoch, and whether it is the first or the last time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """One look of a probe.

    Args:
        step: optimiser steps so far, under which it is logged.
        epoch: epochs so far.
        label: "start", the number of the epoch, or empty for a finished network.
        number: looks of this probe before this one, the start not counted; a resumed run goes on counting.
        first: the network is as it was before training.
        last: no look follows; a finished network is looked at once.
    """

    step: int
    epoch: int
    label: str
    number: int
    first: bool
    last: bool

    @property
    def name(self) -> str:
        """Its name in a legend: `start`, `epoch 3`, or `now` for a finished network."""
        return f"epoch {self.label}" if self.label.isdecimal() else self.label or "now"


FINISHED = Look(0, 0, "", 1, first=False, last=True)
