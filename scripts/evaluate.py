"""Measures what a run learned: ``python scripts/evaluate.py checkpoint=RUN_FOLDER``."""

import sys

from gan_zoo.commands import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
