"""The commands: from their first moment Ctrl-C and SIGTERM end them, with 130 and 143."""

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import NoReturn

from gan_zoo import __version__
from gan_zoo.console import heard_signals, is_first_process, works


def train() -> int:
    """``gan-zoo-train`` and scripts/train.py."""
    return _run("gan_zoo.train", "train")


def sample() -> int:
    """``gan-zoo-sample`` and scripts/sample.py."""
    return _run("gan_zoo.sample", "sample")


def evaluate() -> int:
    """``gan-zoo-evaluate`` and scripts/evaluate.py."""
    return _run("gan_zoo.evaluate", "evaluate")


def compare() -> int:
    """``gan-zoo-compare`` and scripts/compare.py."""
    return _run("gan_zoo.compare", "compare")


def train_evaluator() -> int:
    """scripts/train_evaluator.py."""
    return _run("gan_zoo.evaluate", "train_evaluator")


def benchmark() -> int:
    """scripts/benchmark.py."""
    if "model=all" in sys.argv[1:]:
        code: int = import_module("gan_zoo.benchmark").benchmark_all(sys.argv[1:])
        return code
    return _run("gan_zoo.benchmark", "benchmark")


def _run(module: str, name: str) -> int:
    """Runs a module's task, which has the name of its configuration."""
    heard = heard_signals()
    if works(sys.argv[1:]) and is_first_process():
        # A closed pipe is noticed again where it is handled.
        with suppress(OSError):
            print(f"gan_zoo {__version__} is loading PyTorch, which takes some seconds", flush=True)
    # An exception amid the imports of torch could be taken for one of theirs.
    for number in heard:
        signal.signal(number, _end_at_once)
    task, main = getattr(import_module(module), name), import_module("gan_zoo.cli").main
    for number in heard:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _end)
    try:
        return main(task, name)
    finally:
        for number in heard:
            signal.signal(number, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
