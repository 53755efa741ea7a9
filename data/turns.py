"""The order of training images, and what is drawn to change them, by epoch: a resumed run repeats them."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, SupportsIndex

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Turn(int):
    """The index of an image whose turn it is, and the seed of whatever is drawn to change it this time."""

    seed: int = 0


class Turns(DistributedSampler):
    """All images in an order that depends on `seed` and the epoch alone; each process gets its share.

    Lightning tells the epoch by `set_epoch`.
    """

    def __init__(self, dataset: Dataset, *, seed: int, ranks: int = 1, rank: int = 0):
        super().__init__(dataset, ranks, rank, shuffle=True, seed=seed)

    def __iter__(self) -> Iterator[Turn]:
        for index in super().__iter__():
            turn = Turn(index)
            turn.seed = zlib.crc32(f"{self.seed} {self.epoch} {index}".encode())
            yield turn


class InTurn(DataLoader):
    """A loader that begins as its first batch is asked for.

    When a run is resumed, Lightning makes the iterator before it tells the epoch; processes that load ahead
    would take the turns of another.
    """

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield from super().__iter__()


@contextmanager
def drawn_for(index: SupportsIndex) -> Iterator[None]:
    """Within the block, draws are those of this turn, in whichever process; a plain index changes nothing."""
    if not isinstance(index, Turn):
        yield
        return
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would reach accelerators too
        torch.default_generator.manual_seed(index.seed)
        yield
