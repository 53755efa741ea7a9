"""Exception-safe exchange of results between the processes of a distributed run."""

import errno
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fulgurite.callbacks.framework.distributed import broadcast, gather, is_main_process

FULL = (errno.ENOSPC, errno.EDQUOT)


def exchange(
    observe: Callable[[], Mapping[str, Any]], conclude: Callable[[Sequence[bytes]], None]
) -> str | None:
    """What went wrong on any process, in words, on all of them; None where all went well.

    Every process calls this and observes its share; the first process is given all shares, pickled, in the
    order of the processes, and concludes. An exception in either is caught and reported.
    """
    mine: bytes | str
    try:
        mine = pickle.dumps(dict(observe()))
    except Exception as error:
        mine = in_words(error)
    everyones = gather(mine)
    return broadcast(_concluded(everyones, conclude) if is_main_process() else None)


def in_words(error: Exception) -> str:
    """An exception in one line; words always travel between processes."""
    full = isinstance(error, OSError) and error.errno in FULL
    remedy = "; free some space on the disk, and later looks are written again" if full else ""
    return f"{type(error).__name__}: {error}{remedy}"


def _concluded(everyones: Sequence[bytes | str], conclude: Callable[[Sequence[bytes]], None]) -> str | None:
    packed = []
    for rank, mine in enumerate(everyones):
        if isinstance(mine, str):
            return mine + (f" (on process {rank})" if len(everyones) > 1 else "")
        packed.append(mine)
    try:
        conclude(packed)
    except Exception as error:
        return in_words(error)
    return None
