"""Trains the classifier that measures: ``python scripts/train_evaluator.py dataset=mnist``."""

import sys
from pathlib import Path

from gan_zoo.cli import main
from gan_zoo.evaluate import train_evaluator

if __name__ == "__main__":
    sys.exit(
        main(train_evaluator, Path(__file__).resolve().parent.parent / "conf", "train_evaluator")
    )
