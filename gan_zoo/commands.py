"""The commands: from their first moment Ctrl-C and SIGTERM end them, with 130 and 143."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gan_zoo import __version__
from gan_zoo.console import heard_signals, is_first_process, works

_VERBS = {
    "train": ("gan_zoo.train", "train a model, sweep, or resume a run"),
    "search": ("gan_zoo.train", "search for the best values of options"),
    "sample": ("gan_zoo.sample", "write images, walks between them, or translated pictures"),
    "evaluate": ("gan_zoo.evaluate", "measure a run's images against the test images"),
    "compare": ("gan_zoo.compare", "one page that compares runs"),
    "reproduce": ("gan_zoo.reproduce", "show what a paper claims"),
    "export": ("gan_zoo.export", "write a run's generators for use elsewhere"),
    "train_evaluator": ("gan_zoo.evaluate", "train what images are measured by"),
    "benchmark": ("gan_zoo.benchmark", "measure what training costs beyond its mathematics"),
}
_USAGE = "\n".join(
    [
        "gan-zoo VERB OPTION=VALUE ...",
        "",
        *(f"  {verb.replace('_', '-'):17}{words}" for verb, (_, words) in _VERBS.items()),
        "",
        "gan-zoo VERB --help lists a verb's options.",
    ]
)

_SEARCH_OPTIONS = (
    "n_trials", "storage", "objectives", "sampler", "sampler_options", "pruner", "pruner_options",
    "lost_after_minutes",
)  # fmt: skip
_SEARCH_USAGE = """\
Searches for the best values of options, by an Optuna study.

  python scripts/search.py search=learning_rates model=dcgan n_trials=50
  python scripts/search.py model=gan model.n_critic=1,2 'model.optimizer_g.lr=interval(1e-4,1e-2)'

The same command in another process, or on another machine with the same storage, takes part in the
search; after an interruption it goes on with it.

Options of a search
  search         of conf/search: the space to search, to which the command line adds
  study          a name for it: its folder is runs/search/NAME; by default after its model and data
  n_trials       how many runs the study has at its end
  storage        null: SQLite in the folder; journal: for a cluster's shared disk; or a database's
                 address, such as postgresql://USER@HOST/NAME
  objectives     {best/fid: minimize, seconds: minimize}: figures of metrics.json; null: the best of
                 the monitored figure
  sampler        TPESampler or another of optuna.samplers, sampler_options={n_startup_trials: 20}
  pruner         MedianPruner or another of optuna.pruners, pruner_options as above; null ends none
  lost_after_minutes  of a machine whose files are not to be seen from here

All other options are those of scripts/train.py. Values to search, as Hydra writes them:
  interval(0.1, 1)    tag(log, interval(1e-5, 1e-2))    int(interval(1, 8))    range(16, 257, 16)
  1,2,5               choice(linear, cosine)
"""


def main() -> int:
    """``gan-zoo VERB ...``: the verb's command with the arguments that follow."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in ("", "-h", "--help"):
        return _say(_USAGE) or (0 if verb else 2)
    if verb == "--version":
        print(__version__)
        return 0
    name = verb.replace("-", "_")
    if name not in _VERBS:
        near = get_close_matches(verb, _VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f". There are: {', '.join(_VERBS)}."
        print(f"error: gan-zoo has no verb '{verb}'{hint}", file=sys.stderr)
        return 2
    del sys.argv[1]
    # Lightning starts a run's other processes by these two, so the program has to be the verb's.
    sys.argv[0] = str(Path(sys.argv[0]).with_name(f"gan-zoo-{name.replace('_', '-')}"))
    return run(name)


def train() -> int:
    """scripts/train.py."""
    return run("train")


def search() -> int:
    """scripts/search.py."""
    return run("search")


def sample() -> int:
    """scripts/sample.py."""
    return run("sample")


def evaluate() -> int:
    """scripts/evaluate.py."""
    return run("evaluate")


def compare() -> int:
    """scripts/compare.py."""
    return run("compare")


def reproduce() -> int:
    """scripts/reproduce.py."""
    return run("reproduce")


def export() -> int:
    """scripts/export.py."""
    return run("export")


def train_evaluator() -> int:
    """scripts/train_evaluator.py."""
    return run("train_evaluator")


def benchmark() -> int:
    """scripts/benchmark.py."""
    return run("benchmark")


def run(verb: str) -> int:
    """A verb's command with this process's arguments."""
    if verb == "benchmark" and "model=all" in sys.argv[1:]:
        code: int = import_module("gan_zoo.benchmark").benchmark_all(sys.argv[1:])
        return code
    if verb == "reproduce" and "claim=all" in sys.argv[1:]:
        code = import_module("gan_zoo.reproduce").reproduce_all(sys.argv[1:])
        return code
    if verb == "search":
        if {"-h", "--help"} & set(sys.argv[1:]):
            return _say(_SEARCH_USAGE)
        sys.argv[1:] = _of_a_search(sys.argv[1:])
        verb = "train"
    return _run(_VERBS[verb][0], verb)


def _of_a_search(arguments: Sequence[str]) -> list[str]:
    """What train.py is given for a command line of search.py."""
    found = [] if {"-m", "--multirun"} & set(arguments) else ["-m"]
    if not any(argument.startswith("search=") for argument in arguments):
        found.append("search=default")
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key == "study":
            argument = f"hydra.sweep.dir=runs/search/{value}"
        elif key.partition(".")[0] in _SEARCH_OPTIONS:
            argument = f"hydra.sweeper.{key}{equals}{value}"
        found.append(argument)
    return found


def _say(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader, such as head, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


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
