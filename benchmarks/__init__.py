"""Benchmarks; the libraries that they compare with are found in `.bench`, after all else (see peers.py)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / ".bench"))
