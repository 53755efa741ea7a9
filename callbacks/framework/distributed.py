"""Collective operations between the processes of a distributed run: shard, gather, broadcast."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def shard(subjects: Sequence[T]) -> list[T]:
    """This process's share of the subjects: every n-th."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if _is_distributed() else (0, 1)
    return list(subjects[rank::ranks])


def is_main_process() -> bool:
    """Whether this is the first process, which alone writes and shows progress."""
    return not _is_distributed() or dist.get_rank() == 0


def gather(mine: T) -> list[T]:
    """What each process brought, in order, on the first process; nothing on the others."""
    if not _is_distributed():
        return [mine]
    brought: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(mine, brought)
    return brought or []


def broadcast(value: T) -> T:
    """What the first process says, on all of them."""
    if not _is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def merge_in_order(everyones: Sequence[Mapping[str, T]], subjects: Sequence[str]) -> dict[str, T]:
    """What all processes saw, in the order of the subjects."""
    place = {subject: number for number, subject in enumerate(subjects)}
    merged = {key: value for mine in everyones for key, value in mine.items()}
    return dict(sorted(merged.items(), key=lambda item: _place(item[0], place)))


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _place(key: str, place: Mapping[str, int]) -> int:
    while key not in place and "/" in key:
        key = key.rsplit("/", 1)[0]
    return place.get(key, len(place))
