"""Trains a model: ``python scripts/train.py model=cgan``; ``--help`` lists what there is."""

import sys

from gan_zoo.commands import train

if __name__ == "__main__":
    sys.exit(train())
