"""The command: `python -m fulgurite --help`."""

import sys

from fulgurite.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
