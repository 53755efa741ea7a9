"""Sharding and merging among the processes of a distributed run: image ids, accumulators, objects."""

import copy
from typing import Any, TypeVar

import torch.distributed as dist

from fulgurite.probes.accumulators import Accumulator

T = TypeVar("T")
_host: tuple[Any, Any] = None, None  # the default group, and the one for objects next to it


def shard(count: int) -> range:
    """This process's share of the ids 0 to `count` - 1: every second id of two, all of one."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)
    return range(rank, count, ranks)


def merge_processes(mine: Accumulator) -> None:
    """Merge the accumulators of all processes, in the order of ranks; all then hold the same, on the CPU.

    Every process of a distributed run calls it, with an accumulator of the same arguments; in other runs it
    does nothing.
    """
    if not is_distributed():
        return
    states: list = [None] * dist.get_world_size()
    state = {name: value.cpu() for name, value in mine.state_dict().items()}
    dist.all_gather_object(states, state, group=host_group())
    mine.load_state_dict(states[0])
    for state in states[1:]:
        other = copy.copy(mine)
        other.load_state_dict(state)
        mine.merge(other)


def gather(mine: T) -> list[T]:
    """The objects of all processes, in order of rank, on the first process; nothing on the others."""
    if not is_distributed():
        return [mine]
    brought: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(mine, brought, group=host_group())
    return brought or []


def broadcast(value: T) -> T:
    """The first process's object, on all of them."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, group=host_group())
    return values[0]


def is_distributed() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def host_group() -> dist.ProcessGroup | None:
    """The group by which processes send each other objects: gloo's, of all processes; None is the default.

    NCCL, by which GPUs train, takes only tensors on GPUs: objects would go there and back, and wait for the
    training's kernels. All processes create the group together, when it is first needed.
    """
    global _host
    if "gloo" in dist.get_backend():
        return None
    if _host[0] is not dist.group.WORLD:
        _host = dist.group.WORLD, dist.new_group(backend="gloo")
    return _host[1]
