"""Measures the cost over a bare loop: ``python scripts/benchmark.py model=gan``."""

import sys

from gan_zoo.commands import benchmark

if __name__ == "__main__":
    sys.exit(benchmark())
