"""Batches streamed from tar shards, divided among processes and their workers."""

import random
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from fulgurite.data.decoding import UnreadableImageError, read_image
from fulgurite.data.image_files import printable
from fulgurite.data.readable_images import OnBadImage
from fulgurite.data.samplers import SeededIndex, seeded_by
from fulgurite.data.shard_index import LABEL, LONGEST_LABEL, Shard, entry, is_image, label_of

Batch = tuple[Float[Tensor, "n c h w"], Int[Tensor, "n"]]


@dataclass
class ShardStream:
    """Batches of the images in the shards of this process and this worker.

    For training, the order of the shards and of the images in a buffer of `shuffle` follow from seed and
    epoch; each worker makes a number of batches in proportion to its images, and starts its shards again
    where an epoch needs more. Otherwise each image comes once, in order.

    Args:
        shards: all of them.
        numbers: of each label, the class.
        frame: makes a square tensor of an image.
        steps: batches of an epoch, in each process; None to see each image once.
    """

    shards: Sequence[Shard]
    numbers: Mapping[str, int]
    frame: Callable[[Image.Image], Tensor]
    channels: int
    batch_size: int
    on_bad_image: OnBadImage
    steps: int | None
    shuffle: int = 0
    seed: int = 0
    epoch: int = 0
    ranks: int = 1
    rank: int = 0

    def own(self) -> list[Shard]:
        """The shards of this process, in the order of this epoch."""
        order = list(self.shards)
        if self.steps is not None:
            random.Random(f"{self.seed} {self.epoch}").shuffle(order)
        return order[self.rank :: self.ranks]

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        shares = [self.own()[place::workers] for place in range(workers)]
        if self.steps is None:
            yield from _batched(self._once(shares[number], 0), self.batch_size)
        else:
            wanted = apportioned(self.steps, [sum(map(len, share)) for share in shares])[number]
            yield from islice(_batched(self._endless(shares[number]), self.batch_size), wanted)

    def _endless(self, shards: Sequence[Shard]) -> Iterator[tuple[Tensor, int]]:
        number = 0
        while True:
            empty = True
            for sample in self._once(shards, number):
                empty = False
                yield sample
            if empty:
                raise ValueError(
                    f"no image of {', '.join(printable(one.path) for one in shards[:3])} can be read"
                )
            number += 1

    def _once(self, shards: Sequence[Shard], turn: int) -> Iterator[tuple[Tensor, int]]:
        from webdataset.filters import detshuffle  # an extra  # pyright: ignore[reportMissingImports]

        samples = _samples(shards)
        if self.shuffle and self.steps is not None:
            seed = zlib.crc32(
                f"{self.seed} {self.epoch} {turn} {shards[0].path.name}".encode("utf-8", "replace")
            )
            samples = detshuffle(self.shuffle, self.shuffle, seed).run(samples)
        for sample in samples:
            if (made := self._made(sample)) is not None:
                yield made

    def _made(self, sample: Mapping[str, Any]) -> tuple[Tensor, int] | None:
        ending = next((name for name in sample if is_image(name)), None)
        if ending is None:
            return None
        file = Path(sample["__url__"], f"{sample['__key__']}.{ending}")
        try:
            image = read_image(file, channels=self.channels, content=sample[ending])
        except UnreadableImageError as error:
            if self.on_bad_image == "raise":
                raise
            warnings.warn(f"{error}; it is left out", stacklevel=2)
            return None
        turn = SeededIndex(0)
        turn.seed = zlib.crc32(f"{self.seed} {self.epoch} {sample['__key__']}".encode("utf-8", "replace"))
        with seeded_by(turn):
            return self.frame(image), self.numbers[label_of(sample[LABEL][:LONGEST_LABEL])]


class ShardLoader:
    """Passes over a stream, each with its own workers; each full pass is followed by the next epoch.

    A pass begins when its first batch is read: Lightning makes the iterator before it sets the epoch.
    """

    batch_sampler = None
    """Lightning asks for it wherever there is a `sampler`."""

    def __init__(self, stream: ShardStream, *, workers: int):
        self.stream = stream
        self.workers = min(workers, len(stream.own()))
        self.sampler = StreamEpoch()

    def __iter__(self) -> Iterator[Batch]:
        self.stream.epoch = self.sampler.epoch
        pinned = torch.cuda.is_available()
        yield from DataLoader(
            _Batches(self.stream), batch_size=None, num_workers=self.workers, pin_memory=pinned
        )
        self.sampler.set_epoch(self.sampler.epoch + 1)

    def __len__(self) -> int:
        if self.stream.steps is not None:
            return self.stream.steps
        own, workers = self.stream.own(), max(1, self.workers)
        shares = [sum(map(len, own[place::workers])) for place in range(workers)]
        return sum(-(-share // self.stream.batch_size) for share in shares)


class _Batches(IterableDataset):
    def __init__(self, stream: ShardStream):
        self.stream = stream

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.stream)


class StreamEpoch:
    """The epoch of a stream, which Lightning sets as for a sampler."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next pass is that of this epoch."""
        self.epoch = epoch


def apportioned(steps: int, shares: Sequence[int]) -> list[int]:
    """This many steps in proportion to the shares, by largest remainders."""
    total = sum(shares)
    whole = [steps * share // total for share in shares]
    rest = sorted(range(len(shares)), key=lambda place: -(steps * shares[place] % total))
    for place in rest[: steps - sum(whole)]:
        whole[place] += 1
    return whole


def _samples(shards: Sequence[Shard]) -> Iterator[dict[str, Any]]:
    """The files of each name in the shards, one after the other; webdataset gets no URLs and no commands."""
    from webdataset import tariterators  # an extra  # pyright: ignore[reportMissingImports]

    try:
        files = tariterators.tar_file_expander(_streams(shards), select_files=_wanted)
        yield from tariterators.group_by_keys(files)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"a shard cannot be read to its end: {printable(str(error.args[0]))}") from error


def _streams(shards: Sequence[Shard]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        with shard.path.open("rb") as stream:
            yield {"url": str(shard.path), "stream": stream}


def _wanted(name: str) -> bool:
    _, ending = entry(name)
    return ending == LABEL or is_image(ending)


def _batched(samples: Iterator[tuple[Tensor, int]], size: int) -> Iterator[Batch]:
    while few := list(islice(samples, size)):
        images, labels = zip(*few, strict=True)
        yield torch.stack(images), torch.tensor(labels)
