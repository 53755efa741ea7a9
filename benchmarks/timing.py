"""Interleaved timing of alternatives on a noisy machine, printed as one table."""

import ctypes
import gc
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # numbers of glibc's mallopt


def keep_heap() -> None:
    """Keep freed memory, where the C library is glibc.

    It gives large blocks back to the system, so that page faults take up to a third of a pass, at random more
    for one alternative than for another.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(TRIM_THRESHOLD, -1)
        libc.mallopt(MMAP_MAX, 0)


def in_turn(
    contestants: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, float]:
    """Median seconds of each by a clock, after one warm-up; every round runs all of them."""
    keep_heap()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(repeats + 1):
        for name, run in contestants.items():
            gc.collect()
            started = clock()
            run()
            if round_:
                seconds[name].append(clock() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, with the machine that it was measured on."""
    cells = [
        head,
        *([f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    print(f"\n{title}\n(torch {torch.__version__}, {platform.machine()})\n")
    for place, row in enumerate(cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if place == 0:
            print("  ".join("-" * width for width in widths))
