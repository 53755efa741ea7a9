"""Exception-safe exchange of results between the processes of a distributed run."""

import errno
import io
import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fulgurite.callbacks.framework.distributed import is_main_process
from fulgurite.probes.distributed import broadcast, gather

FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Failure:
    """The error of a process as text: the exception itself may not be picklable."""

    words: str
    trace: str
    of_value: bool  # a ValueError: the configuration is wrong


def exchange(
    observe: Callable[[], Any], conclude: Callable[[Sequence[bytes]], Any]
) -> tuple[Failure | None, Any]:
    """The error of any process, or None, on all processes; and the result of the first process.

    Every process calls this and observes its share; the first process gets all shares, pickled, in the
    order of the processes, and concludes. Tensors are sent on the CPU. An exception in either is caught.
    """
    mine: bytes | Failure
    try:
        mine = packed(observe())
    except Exception as error:
        mine = failure_of(error)
    everyones = gather(mine)
    return broadcast(_concluded(everyones, conclude) if is_main_process() else (None, None))


def outcomes(act: Callable[[], None]) -> list[Failure | None]:
    """The errors of each process, in order of rank, on all of them."""
    mine = None
    try:
        act()
    except Exception as error:
        mine = failure_of(error)
    everyones = gather(mine)
    return broadcast([_on(rank, failure, len(everyones)) for rank, failure in enumerate(everyones)])


def failure_of(error: Exception) -> Failure:
    """An exception in one line, and its traceback."""
    full = isinstance(error, OSError) and error.errno in FULL
    remedy = "; free some space on the disk, and later results are written again" if full else ""
    # for a full disk, a traceback does not help
    trace = "" if full else "".join(traceback.format_exception(error))
    return Failure(f"{type(error).__name__}: {error}{remedy}", trace, isinstance(error, ValueError))


def packed(values: Any) -> bytes:
    """Values as bytes; tensors leave the device that they are on."""
    file = io.BytesIO()
    _OnCPU(file).dump(values)
    return file.getvalue()


class _OnCPU(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, Tensor) and obj.device.type != "cpu":
            return obj.detach().cpu().__reduce_ex__(pickle.DEFAULT_PROTOCOL)
        if isinstance(obj, torch.device) and obj.type != "cpu":
            return torch.device, ("cpu",)
        return NotImplemented


def _concluded(
    everyones: Sequence[bytes | Failure], conclude: Callable[[Sequence[bytes]], Any]
) -> tuple[Failure | None, Any]:
    found = []
    for rank, mine in enumerate(everyones):
        if isinstance(mine, Failure):
            return _on(rank, mine, len(everyones)), None
        found.append(mine)
    try:
        return None, conclude(found)
    except Exception as error:
        return failure_of(error), None


def _on(rank: int, failure: Failure | None, ranks: int) -> Failure | None:
    if failure is None or ranks == 1:
        return failure
    return replace(failure, words=f"{failure.words} (on process {rank})")
