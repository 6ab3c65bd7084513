"""Trains a model: ``python scripts/train.py model=cgan``; ``--help`` lists what there is."""

import sys

from gan_zoo.train import command

if __name__ == "__main__":
    sys.exit(command())
