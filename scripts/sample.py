"""Draws images: ``python scripts/sample.py checkpoint=RUN_FOLDER num_samples=100``."""

import sys
from pathlib import Path

from gan_zoo.cli import main
from gan_zoo.sample import sample

if __name__ == "__main__":
    sys.exit(main(sample, Path(__file__).resolve().parent.parent / "conf", "sample"))
