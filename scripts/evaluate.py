"""Measures what a run learned: ``python scripts/evaluate.py checkpoint=RUN_FOLDER``."""

import sys
from pathlib import Path

from gan_zoo.cli import main
from gan_zoo.evaluate import evaluate

if __name__ == "__main__":
    sys.exit(main(evaluate, Path(__file__).resolve().parent.parent / "conf", "evaluate"))
