"""Restarts and target classes run in parallel with the results of running them one by one."""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Try = TypeVar("Try")


class RestartBatches(Generic[Try]):
    """Tries in their order, as many together as fit when each is made at all images that are left.

    Args:
        tries: such as restarts, or target_classes.
        most: how many copies of images may run at once; where more are left, each try runs by itself.
    """

    def __init__(self, tries: Sequence[Try], most: int):
        self._tries, self._most, self._begun = tries, most, 0

    def next(self, left: int) -> Sequence[Try]:
        """The next tries at so many images; none after the last, or when no image is left."""
        begun = self._begun
        self._begun += max(1, self._most // left) if left else 0
        return self._tries[begun : self._begun]


class Copies:
    """A copy of each image for each of several tries, those for the first try first.

    When a copy has won, those for later tries at its image are of no more use. Those for earlier tries are:
    had the tries been made in turn, one of them might have won before this one began.

    Args:
        rows: which images.
        tries: how many.
    """

    def __init__(self, rows: Int[Tensor, "m"], tries: int):
        self.rows, self.tries = rows.repeat(tries), tries
        self.places = torch.arange(len(self.rows), device=rows.device)
        self._first = torch.full_like(rows, tries)  # of each image, the first try that won

    def useful(self, won: Bool[Tensor, "k"]) -> Bool[Tensor, "k"]:
        """Which of the copies are to go on, now that some have won; the others are forgotten."""
        image, turn = self.places % len(self._first), self.places // len(self._first)
        self._first.scatter_reduce_(0, image[won], turn[won], "amin")
        going = turn < self._first[image]
        self.rows, self.places = self.rows[going], self.places[going]
        return going

    def apart(self, *found: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """What was found for all copies, try by try."""
        return zip(*(part.chunk(self.tries) for part in found), strict=True)
