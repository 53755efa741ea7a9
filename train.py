"""Train, validate, test and probe: `python train.py --help`."""

import sys

from fulgurite.recipes.command import main

if __name__ == "__main__":
    sys.exit(main())
