"""Measures the cost over a bare loop: ``python scripts/benchmark.py model=gan``."""

import sys
from pathlib import Path

from gan_zoo.benchmark import benchmark
from gan_zoo.cli import main

if __name__ == "__main__":
    sys.exit(main(benchmark, Path(__file__).resolve().parent.parent / "conf", "benchmark"))
