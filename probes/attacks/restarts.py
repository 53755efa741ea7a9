"""Restarts and target classes run in parallel with the results of running them one by one."""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Attempt = TypeVar("Attempt")


class RestartBatches(Generic[Attempt]):
    """Attempts in order; several run together where copies of all images left fit into one batch.

    Args:
        attempts: restarts, or target classes.
        at_once: the number of copies that may run at once; with more images left, each attempt runs alone.
    """

    def __init__(self, attempts: Sequence[Attempt], at_once: int):
        self._attempts, self._at_once, self._start = attempts, at_once, 0

    def next(self, left: int) -> Sequence[Attempt]:
        """The next attempts at `left` images; none after the last, or when no image is left."""
        start = self._start
        self._start += max(1, self._at_once // left) if left else 0
        return self._attempts[start : self._start]


class Copies:
    """A copy of each image for each of several attempts, those of the first attempt first.

    When a copy has succeeded, the later attempts at its image are dropped. The earlier ones go on: run one
    after the other, one of them might have succeeded first.

    Args:
        rows: which images.
        attempts: how many.
    """

    def __init__(self, rows: Int[Tensor, "m"], attempts: int):
        self.rows, self.attempts = rows.repeat(attempts), attempts
        self.places = torch.arange(len(self.rows), device=rows.device)
        self._first = torch.full_like(rows, attempts)  # of each image, the first attempt that succeeded

    def useful(self, succeeded: Bool[Tensor, "k"]) -> Bool[Tensor, "k"]:
        """Which copies go on, now that some have succeeded; the others are dropped."""
        image, attempt = self.places % len(self._first), self.places // len(self._first)
        self._first.scatter_reduce_(0, image[succeeded], attempt[succeeded], "amin")
        going = attempt < self._first[image]
        self.rows, self.places = self.rows[going], self.places[going]
        return going

    def apart(self, *found: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The results of all copies, attempt by attempt."""
        return zip(*(part.chunk(self.attempts) for part in found), strict=True)
