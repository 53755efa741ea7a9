"""Sharding of a probe's subjects among the processes of a distributed run, and merging of results."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch.distributed as dist

from fulgurite.probes.distributed import is_distributed

T = TypeVar("T")


def shard(subjects: Sequence[T]) -> list[T]:
    """This process's share of the subjects: every n-th."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)
    return list(subjects[rank::ranks])


def is_main_process() -> bool:
    """Whether this is the first process, which alone writes and shows progress."""
    return not is_distributed() or dist.get_rank() == 0


def merge_in_order(everyones: Sequence[Mapping[str, T]], subjects: Sequence[str]) -> dict[str, T]:
    """The observations of all processes, in the order of the subjects."""
    place = {subject: number for number, subject in enumerate(subjects)}
    merged = {key: value for mine in everyones for key, value in mine.items()}
    return dict(sorted(merged.items(), key=lambda item: _place(item[0], place)))


def _place(key: str, place: Mapping[str, int]) -> int:
    while key not in place and "/" in key:
        key = key.rsplit("/", 1)[0]
    return place.get(key, len(place))
