"""Draws images: ``python scripts/sample.py checkpoint=RUN_FOLDER num_samples=100``."""

import sys

from gan_zoo.commands import sample

if __name__ == "__main__":
    sys.exit(sample())
