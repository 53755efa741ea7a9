"""Train, validate, test and probe: `python train.py --help`."""

import sys
from pathlib import Path

from fulgurite.cli.command import main

if __name__ == "__main__":
    # runs are saved next to this file, and nothing in them must be importable
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]
    sys.exit(main())
