"""Measures what a run learned: ``python scripts/evaluate.py checkpoint=RUN_FOLDER``."""

import sys

from gan_zoo.evaluate import command

if __name__ == "__main__":
    sys.exit(command())
