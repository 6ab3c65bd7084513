"""Runs a command under Hydra and says in a sentence what went wrong, in one run or in a sweep."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from gan_zoo.console import keep
from gan_zoo.files import CONFIG_DIR
from gan_zoo.run.configuration import VERSION_BASE, readable
from gan_zoo.run.errors import explain
from gan_zoo.run.folder import look, remove_folder
from gan_zoo.run.job import SweptJob, continued, searches, write_reason
from gan_zoo.run.resume import Resumed, resumed, resumed_configuration, with_latest
from gan_zoo.run.sweep import Jobs, sweeping
from gan_zoo.search import searching
from gan_zoo.training.lightning_state import silence_known_warnings

Task = Callable[[DictConfig], object]

_FULL_ERROR = "HYDRA_FULL_ERROR"


class _Ended(BaseException):
    """Takes a run's error, its cause, past Hydra, which would print the overrides."""


class _JobFailed(Exception):
    """Tells a search that a job failed; plain text, so that any error gets through a pickle."""


class _Job:
    """A command's task as Hydra calls it, once a job; other processes get it pickled.

    Args:
        task: takes the composed configuration.
        config_name: of the primary configuration.
        full_error: what the user has set HYDRA_FULL_ERROR to.
        resumed: a run whose configuration takes the place of the composed one.
    """

    def __init__(
        self, task: Task, config_name: str, full_error: str | None, resumed: Resumed | None = None
    ) -> None:
        # Hydra names the job, and its log, by the task's module.
        self.__wrapped__ = task
        self.config_name = config_name
        self.full_error = full_error
        self.resumed = resumed
        self.typed = sys.argv[1:]
        self.swept = SweptJob()

    def __call__(self, config: DictConfig) -> object:
        silence_known_warnings()
        try:
            with self.swept.running():
                return self._run(config)
        except SystemExit:
            if self.swept.is_interrupted():
                # The sweep's process ends it. Of a job that has not begun Hydra has made a folder.
                folder = Path(HydraConfig.get().runtime.output_dir)
                if {path.name for path in folder.glob("*")} <= {f"{self.config_name}.log"}:
                    remove_folder(folder)
                return None
            raise

    def _run(self, config: DictConfig) -> object:
        job = HydraConfig.get()
        sweeps = job.mode == RunMode.MULTIRUN
        searched = sweeps and searches(job)
        folder = Path(job.runtime.output_dir)
        try:
            if self.resumed:
                # Lightning starts the other processes of a run by it.
                sys.argv[1:] = self.typed
                config = resumed_configuration(config, self.resumed)
            elif sweeps and self.config_name == "train":
                config = continued(config, folder)
            with _environment(_FULL_ERROR, self.full_error):
                figure = self.__wrapped__(config)
            if searched and figure is None:
                raise ValueError("The run measured no finite figure to search by.")
            return figure
        except Exception as error:
            notes = getattr(error, "__notes__", [])
            reason = "\n".join([explain(error, self.config_name, config), *notes])
            keep(f"error: {reason}", logging.ERROR)
            if not sweeps:
                raise _Ended(reason) from error
            told = traceback.format_exc() if self.full_error == "1" else f"error: {reason}"
            print(told, file=sys.stderr)
            write_reason(folder, reason)
            if searched:
                raise _JobFailed(reason) from None
            # Raised, it would keep later batches of jobs from running.
            return None


def main(task: Task, config_name: str) -> int:
    """Composes the configuration from the command line and runs the task with it.

    In a sweep all jobs run. One that fails leaves ``error.txt`` in its folder, and all failures are
    listed at the end, after the leaderboard of a training sweep. A search stops if its first
    trials fail.

    Args:
        task: called with the composed configuration, once a job in a multirun.
        config_name: the primary configuration, without its ending.

    Returns:
        0, or 1 after an error, which is printed in a line or two; HYDRA_FULL_ERROR=1 in the
        environment raises it instead, or prints the traceback of each job of a sweep. 128 and the
        signal's number after Ctrl-C.

    Raises:
        SystemExit: after SIGTERM, with 143.
    """
    with searching(), sweeping() as sweeps:
        return _main(task, config_name, sweeps)


def _main(task: Task, config_name: str, sweeps: list[Jobs]) -> int:
    full_error = os.environ.get(_FULL_ERROR)
    silence_known_warnings()
    run = hydra.main(
        version_base=VERSION_BASE, config_path=str(CONFIG_DIR), config_name=config_name
    )
    arguments: list[str] = []
    error, reason = None, ""
    try:
        # Also for the other processes of a run, which get this one's command line.
        sys.argv[1:] = with_latest(sys.argv[1:])
        arguments, run_to_resume = [readable(a) for a in sys.argv[1:]], None
        if config_name == "train":
            arguments, run_to_resume = resumed(arguments)
        job = _Job(task, config_name, full_error, run_to_resume)
        # argparse refuses overrides on both sides of an option.
        sys.argv[1:] = sorted(arguments, key=lambda a: a not in ("-m", "--multirun"))
        # Hydra raises what it would print itself.
        with _environment(_FULL_ERROR, "1"):
            try:
                run(job)()
            except (Exception, _Ended) as raised:
                if interruption := _interruption(raised):
                    raise interruption from raised
                raise
            finally:
                # Not at the end of the process, where a closed pipe could not be handled.
                sys.stdout.flush()
    except (KeyboardInterrupt, SystemExit) as interruption:
        for sweep in sweeps:
            if sweep.trains:
                print(f"The sweep is interrupted. Go on with: {sweep.command(arguments)}")
        if isinstance(interruption, SystemExit):
            raise
        return 128 + signal.SIGINT
    except _Ended as ended:
        error, reason = ended.__cause__, str(ended)
    except Exception as raised:
        error, reason = raised, explain(raised, config_name)
    if isinstance(error, BrokenPipeError):
        # The reader of the output, such as head, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    failed_jobs = "".join(sweep.failures() for sweep in sweeps)
    try:
        for sweep in sweeps:
            _print_leaderboard(sweep)
    except Exception as raised:
        if error is None:
            error, reason = raised, explain(raised, config_name)
    if error and not isinstance(error, _JobFailed):
        if full_error == "1":
            raise error
        print(f"error: {reason}", file=sys.stderr)
    if failed_jobs:
        print(failed_jobs, file=sys.stderr)
    for sweep in sweeps:
        if error and sweep.asked and not sweep.is_over:
            print(f"Go on with: {sweep.command(arguments)}")
    return int(bool(error or failed_jobs))


def _interruption(error: BaseException | None) -> BaseException | None:
    """What ended a command, where a library that was amid its work has made it an error of its own.

    A file that could not be saved on the way out is still told of.
    """
    while error and not isinstance(error, (KeyboardInterrupt, SystemExit)):
        error = None if isinstance(error, OSError) else error.__context__
    return error


def _print_leaderboard(sweep: Jobs) -> None:
    if not sweep.trains or not sweep.folder.is_dir() or not sweep.asked:
        return
    # It imports what reads pictures and event files.
    from gan_zoo.compare import write_leaderboard

    print(write_leaderboard(sweep.folder))
    print(look(sweep.folder.absolute()))


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    def put(value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    before = os.environ.get(name)
    put(value)
    try:
        yield
    finally:
        put(before)
