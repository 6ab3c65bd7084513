"""Compares runs: ``python scripts/compare.py root=FOLDER``, also while they go on."""

import sys

from gan_zoo.commands import compare

if __name__ == "__main__":
    sys.exit(compare())
