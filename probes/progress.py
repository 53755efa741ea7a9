"""Progress of long work: a bar on a terminal or in a notebook, and a few lines in a file or a pipe."""

import sys
from collections.abc import Iterable, Iterator, Sized
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from tqdm.auto import tqdm

from fulgurite.probes.counted import counted

T = TypeVar("T")
DELAY, EVERY = 3.0, 600.0
"""Seconds before progress is shown, and between two lines of it where there is no terminal."""


def progress_bar(
    work: Iterable[T] | None = None, label: str | None = None, *, total: int | None = None, unit: str = "step"
) -> "tqdm[T] | Lines[T]":
    """Progress bar on stderr, for work of more than three seconds.

    Args:
        work: the iterable; without it, call `update` after each step, and `close` at the end.
        label: what is being done; nothing is shown without it.
        total: the number of steps, if `work` has no length.
        unit: what a step is, in the singular: image, batch.
    """
    if label is None or sys.stderr.isatty() or "ipykernel" in sys.modules:
        bar = tqdm(work, label, total=total, disable=label is None, delay=DELAY, leave=False, unit=f" {unit}")
        return cast("tqdm[T]", bar)  # without work, there is nothing to iterate over
    return Lines(work, label, total=total, unit=unit)


class Lines(Generic[T]):
    """Progress in files and pipes: a line after three seconds, every ten minutes, and at the end."""

    def __init__(self, work: Iterable[T] | None, label: str, *, total: int | None = None, unit: str = "step"):
        self.unit = unit
        self.work, self.label, self.done, self.disable = work, label, 0, False
        self.total = len(work) if total is None and isinstance(work, Sized) else total
        self._began = monotonic()
        self._next, self._printed, self._value = self._began + DELAY, False, ""

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self.work or ():
                yield item
                self.update()

    def update(self, steps: int = 1) -> None:
        """Count steps that are done."""
        self.done += steps
        if (now := monotonic()) < self._next or self.done == self.total:
            return
        self._next, self._printed, took = now + EVERY, True, now - self._began
        left = f", {in_words(took / self.done * (self.total - self.done))} to go" if self.total else ""
        self._print(f"after {in_words(took)}{left}")

    def set_postfix_str(self, words: str, *, refresh: bool = False) -> None:
        """What the next line ends with."""
        self._value = f", {words}"
        del refresh

    def close(self) -> None:
        """End the progress, with a last line if any was shown."""
        if self._printed:
            self._print(f"in {in_words(monotonic() - self._began)}")
        self._printed = False

    def __enter__(self) -> "Lines[T]":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _print(self, words: str) -> None:
        done = (
            f"{self.done} of {counted(self.total, self.unit)}"
            if self.total
            else counted(self.done, self.unit)
        )
        print(f"{self.label}: {done} {words}{self._value}", file=sys.stderr, flush=True)


def in_words(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
