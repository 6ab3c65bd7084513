"""What a command says to the person who has typed it, and a run keeps in its log."""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Hydra's flags of a command that does its work; all others print what may go into a file.
_WORKING = re.compile(r"-m|--multirun|-r|--run|-c[pnd].*|--config-.*|--experimental-rerun.*")
_RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID")

# This module is the first to be imported of a command's.
_STARTED = time.monotonic()


def seconds_since_start() -> float:
    """How long ago the command began to load."""
    return time.monotonic() - _STARTED


def works(arguments: Sequence[str]) -> bool:
    """Whether a command line has a command do its work, rather than print what it is asked."""
    return all(_WORKING.fullmatch(a) for a in arguments if a.startswith("-"))


def is_first_process() -> bool:
    """Whether this process is the first, or the only one, of its run."""
    return all(os.environ.get(rank, "0") == "0" for rank in _RANKS)


def heard_signals() -> list[int]:
    """SIGINT and SIGTERM, but for what is ignored, as under nohup, and stays so."""
    both = (signal.SIGINT, signal.SIGTERM)
    return [number for number in both if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def signals_answered(answer: Callable[[int, FrameType | None], object]) -> Iterator[list[int]]:
    """Has this function answer the signals that are heard, until its end; gives their numbers."""
    before = {number: signal.signal(number, answer) for number in heard_signals()}
    try:
        yield list(before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """Has Ctrl-C and SIGTERM wait until its end.

    An exception amid the work of a library, such as Hydra's composing, can come out as an error of
    that library.
    """
    came: list[int] = []
    try:
        with signals_answered(lambda number, frame: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


def say(text: str) -> None:
    """Prints lines as they are, and keeps them in the run's log."""
    print(text, flush=True)
    keep(text)


def keep(text: str, level: int = logging.INFO) -> None:
    """Writes what is printed elsewhere into the run's log, if there is one and it can be written.

    During a run's session what can't be written ends it (gan_zoo.run.folder).
    """
    raised, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        for handler in logging.root.handlers:
            # A folder that was removed would begin anew.
            if isinstance(handler, logging.FileHandler) and os.path.exists(handler.baseFilename):
                for line in text.splitlines():
                    handler.handle(logging.LogRecord(__name__, level, "", 0, line, None, None))
    finally:
        logging.raiseExceptions = raised


def print_table(table: Any) -> None:
    """Prints a table of rich."""
    from rich.console import Console

    # In a file or a pipe, lines are not to be cut to a terminal's width.
    width = None if sys.stdout.isatty() else 160
    # Names come from files, and may hold what would be markup.
    Console(width=width, markup=False, emoji=False).print(table)


@contextmanager
def progress(after: float = 2.0) -> Iterator[Callable[[str], Callable[[float], None]]]:
    """Progress bars where the output is a terminal: a stage's name -> what its share is told to.

    A stage's bar comes once it has taken ``after`` seconds.
    """
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), *Progress.get_default_columns()[1:]
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:

        def stage(name: str) -> Callable[[float], None]:
            task, begun = bars.add_task(name, total=1.0, visible=False), time.monotonic()

            def told(share: float) -> None:
                visible = time.monotonic() - begun >= after
                bars.update(task, completed=share, visible=visible)

            return told

        yield stage
