"""Samplers with a reproducible order and augmentation per epoch, so that resuming is exact."""

import zlib
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any, SupportsIndex

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class SeededIndex(int):
    """The index of an image, with the seed of its augmentation in this epoch."""

    seed: int = 0


class EpochSampler(DistributedSampler):
    """All images in an order that depends only on `seed` and the epoch; each process gets its share.

    Lightning sets the epoch by `set_epoch`. Two processes with batches of 16 see the same images in the same
    steps as one with batches of 32. Only where the images cannot be divided evenly, the first ones of the
    epoch are repeated in its last step: all processes need the same number.
    """

    def __init__(self, dataset: Dataset, *, seed: int, ranks: int = 1, rank: int = 0):
        super().__init__(dataset, ranks, rank, shuffle=True, seed=seed)

    def __iter__(self) -> Iterator[SeededIndex]:
        for index in super().__iter__():
            seeded = SeededIndex(index)
            seeded.seed = zlib.crc32(f"{self.seed} {self.epoch} {index}".encode())
            yield seeded


class EvaluationSampler(DistributedSampler):
    """All images in order, divided among the processes, each image once: some may get one fewer.

    Raises:
        ValueError: there are fewer images than processes.
    """

    def __init__(self, dataset: Sized, *, ranks: int, rank: int):
        if len(dataset) < ranks:
            raise ValueError(
                f"images to judge by: {len(dataset)}, processes that share them: {ranks}; wanted one each, "
                "or fewer processes"
            )
        super().__init__(dataset, ranks, rank, shuffle=False)  # pyright: ignore[reportArgumentType]
        self.mine = range(rank, len(dataset), ranks)

    def __iter__(self) -> Iterator[int]:
        return iter(self.mine)

    def __len__(self) -> int:
        return len(self.mine)


class LateLoader(DataLoader):
    """A loader that starts when its first batch is read; each full pass is followed by the next epoch.

    When a run is resumed, Lightning makes the iterator before it sets the epoch; workers that prefetch would
    use the draws of another epoch.
    """

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield from super().__iter__()
        assert isinstance(self.sampler, EpochSampler)
        self.sampler.set_epoch(self.sampler.epoch + 1)


@contextmanager
def seeded_by(index: SupportsIndex, device: torch.device | None = None) -> Iterator[None]:
    """Within the block, random draws follow from the index's seed; a plain index changes nothing.

    This includes draws on a GPU, if it is the `device`.
    """
    if not isinstance(index, SeededIndex):
        yield
        return
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # not torch.manual_seed, which would reach all accelerators too
        torch.default_generator.manual_seed(index.seed)
        if cuda:
            with torch.cuda.device(cuda[0]):
                torch.cuda.manual_seed(index.seed)
        yield
