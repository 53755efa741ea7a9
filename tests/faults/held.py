"""train.py in a process that waits in a phase for a signal, if at all: held.py PHASE CALL FILE WORDS..."""

import runpy
import sys
from pathlib import Path

from faults.killed import hold
from processes import brief

if __name__ == "__main__":
    phase, call, held, *words = sys.argv[1:]
    brief()
    hold(phase, int(call), Path(held))
    train = str(Path(__file__).parents[2] / "train.py")
    sys.argv = [train, *words]
    runpy.run_path(train, run_name="__main__")
