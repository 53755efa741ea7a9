"""What the processes of a distributed run share and merge: ids of images, and accumulators."""

import copy

import torch.distributed as dist

from fulgurite.probes.accumulators import Accumulator


def shard(count: int) -> range:
    """This process's share of the ids 0 to `count` - 1: every second of two processes, all of one."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if _distributed() else (0, 1)
    return range(rank, count, ranks)


def merge_processes(mine: Accumulator) -> None:
    """Merge the accumulators of all processes, in the order of ranks; all then hold the same, on the CPU.

    Every process of a distributed run calls it, with an accumulator of the same arguments; in other runs it
    does nothing.
    """
    if not _distributed():
        return
    states: list = [None] * dist.get_world_size()
    dist.all_gather_object(states, {name: value.cpu() for name, value in mine.state_dict().items()})
    mine.load_state_dict(states[0])
    for state in states[1:]:
        other = copy.copy(mine)
        other.load_state_dict(state)
        mine.merge(other)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
