"""Benchmarks; the libraries to compare with are imported from `.bench`, last on the path (see peers.py)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / ".bench"))
