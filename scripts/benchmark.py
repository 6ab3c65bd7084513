"""Measures the cost over a bare loop: ``python scripts/benchmark.py model=gan``."""

import sys

from gan_zoo.benchmark import command

if __name__ == "__main__":
    sys.exit(command())
