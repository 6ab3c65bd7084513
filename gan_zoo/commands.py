"""The commands: from their first moment Ctrl-C and SIGTERM end them, with 130 and 143."""

import os
import signal
from importlib import import_module
from types import FrameType
from typing import NoReturn


def train() -> int:
    """``gan-zoo-train`` and scripts/train.py."""
    return _run("gan_zoo.train", "command")


def sample() -> int:
    """``gan-zoo-sample`` and scripts/sample.py."""
    return _run("gan_zoo.sample", "command")


def evaluate() -> int:
    """``gan-zoo-evaluate`` and scripts/evaluate.py."""
    return _run("gan_zoo.evaluate", "command")


def train_evaluator() -> int:
    """scripts/train_evaluator.py."""
    return _run("gan_zoo.evaluate", "train_evaluator_command")


def benchmark() -> int:
    """scripts/benchmark.py."""
    return _run("gan_zoo.benchmark", "command")


def _run(module: str, function: str) -> int:
    # What is ignored, as under nohup, stays so.
    heard = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    # An exception amid the imports of torch could be taken for one of theirs.
    for number in heard:
        signal.signal(number, _end_at_once)
    command = getattr(import_module(module), function)
    for number in heard:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _end)
    try:
        return command()
    finally:
        for number in heard:
            signal.signal(number, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
