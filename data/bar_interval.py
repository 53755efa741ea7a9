"""How often a progress bar is drawn: rarely where each update is a line in a file."""

import sys


def bar_interval() -> float:
    """Seconds between two updates: a tenth on a terminal, ten minutes in a file or a pipe."""
    return 0.1 if sys.stderr.isatty() else 600.0
