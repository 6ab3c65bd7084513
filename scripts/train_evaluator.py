"""Trains the classifier that measures: ``python scripts/train_evaluator.py dataset=mnist``."""

import sys

from gan_zoo.commands import train_evaluator

if __name__ == "__main__":
    sys.exit(train_evaluator())
