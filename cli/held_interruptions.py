"""Ctrl-C in commands that keep what was reached: another one waits while that is written."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

INTERRUPTED = "note: interrupted; this is what was reached"
HELD = "note: what was reached is being written; Ctrl-C again ends without it"


@contextlib.contextmanager
def second_held() -> Iterator[list[int]]:
    """Within the block, the first Ctrl-C interrupts as usual, and the second only prints a note.

    An ascent that keeps its images catches the first; they are then drawn and written, and the command ends.
    A third Ctrl-C interrupts. What is given back grows with each.
    """
    presses = list[int]()

    def pressed(signum: int, _: FrameType | None) -> None:
        presses.append(signum)
        if len(presses) == 2:
            print(HELD, file=sys.stderr)
            return
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()  # only it receives signals
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield presses
        return
    signal.signal(signal.SIGINT, pressed)
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
