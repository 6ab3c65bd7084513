"""Trains a model: ``python scripts/train.py model=cgan``; ``--help`` lists what there is."""

import sys
from pathlib import Path

from gan_zoo.cli import main
from gan_zoo.train import train

if __name__ == "__main__":
    sys.exit(main(train, Path(__file__).resolve().parent.parent / "conf", "train"))
