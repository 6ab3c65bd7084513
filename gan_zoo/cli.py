"""Runs a command under Hydra and says in a sentence what went wrong, in one run or in a sweep."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from gan_zoo.run.configuration import CONFIG_DIR, VERSION_BASE, constant_overrides
from gan_zoo.run.errors import explain
from gan_zoo.run.resume import resumed_arguments
from gan_zoo.training.lightning_state import silence_known_warnings

Task = Callable[[DictConfig], object]

_FULL_ERROR = "HYDRA_FULL_ERROR"
# In the folder of a sweep's job that failed.
_REASON_FILE = "error.txt"


class _Ended(BaseException):
    """Takes a run's error past Hydra, which would print the overrides."""


class _Job:
    """A command's task as Hydra calls it, once a job; other processes get it pickled.

    Args:
        task: takes the composed configuration.
        config_name: of the primary configuration.
        full_error: what the user has set HYDRA_FULL_ERROR to.
    """

    def __init__(self, task: Task, config_name: str, full_error: str | None) -> None:
        # Hydra names the job, and its log, by the task's module.
        self.__wrapped__ = task
        self.config_name = config_name
        self.full_error = full_error

    def __call__(self, config: DictConfig) -> object:
        silence_known_warnings()
        sweeps = HydraConfig.get().mode == RunMode.MULTIRUN
        reason_file = Path(HydraConfig.get().runtime.output_dir) / _REASON_FILE
        if sweeps:
            reason_file.unlink(missing_ok=True)
        try:
            with _environment(_FULL_ERROR, self.full_error):
                return self.__wrapped__(config)
        except Exception as error:
            if self.full_error == "1":
                raise _Ended(error, "") from error
            reason = "\n".join(
                [explain(error, self.config_name, config), *getattr(error, "__notes__", [])]
            )
            if not sweeps:
                raise _Ended(error, reason) from error
            print(f"error: {reason}", file=sys.stderr)
            reason_file.parent.mkdir(parents=True, exist_ok=True)
            reason_file.write_text(f"{reason}\n")
            # No figure: a search counts the job as failed.
            return None


def main(task: Task, config_name: str) -> int:
    """Composes the configuration from the command line and runs the task with it.

    In a sweep all jobs run. One that fails leaves ``error.txt`` in its folder, and all failures are
    listed at the end.

    Args:
        task: called with the composed configuration, once a job in a multirun.
        config_name: the primary configuration, without its ending.

    Returns:
        0, or 1 after an error, which is printed in a line or two; HYDRA_FULL_ERROR=1 in the
        environment raises it instead.
    """
    full_error = os.environ.get(_FULL_ERROR)
    silence_known_warnings()
    run = hydra.main(
        version_base=VERSION_BASE, config_path=str(CONFIG_DIR), config_name=config_name
    )
    try:
        sys.argv[1:] = resumed_arguments(sys.argv[1:], config_name)
        if {"-m", "--multirun"} & set(sys.argv[1:]):
            constant = ",".join(constant_overrides(sys.argv[1:]))
            sys.argv.append(f"hydra.job.config.override_dirname.exclude_keys=[{constant}]")
        # Hydra raises what it would print itself.
        with _environment(_FULL_ERROR, "1"):
            run(_Job(task, config_name, full_error))()
        reason = ""
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of the output, such as head, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (_Ended, Exception) as raised:
        error, reason = raised.args if isinstance(raised, _Ended) else (raised, "")
        if full_error == "1":
            raise error from error.__cause__
        reason = reason or explain(error, config_name)
    reason = _failures() or (f"error: {reason}" if reason else "")
    if reason:
        print(reason, file=sys.stderr)
    return int(bool(reason))


def _failures() -> str:
    """The jobs of the sweep that failed, a line each; nothing where there is no sweep.

    A sweep that leaves nothing else is removed.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return ""
    sweep = Path(HydraConfig.get().sweep.dir)
    reasons = sorted(sweep.glob(f"*/{_REASON_FILE}"), key=lambda file: _number(file.parent))
    jobs = [path for path in sweep.glob("*") if path.is_dir()]
    lines = [f"{file.parent.name}: {' '.join(file.read_text().split())}" for file in reasons]
    if {file.name for file in sweep.rglob("*") if file.is_file()} <= {
        _REASON_FILE,
        "multirun.yaml",
    }:
        shutil.rmtree(sweep, ignore_errors=True)
    return "\n  ".join([f"{len(lines)} of {len(jobs)} jobs failed:", *lines]) if lines else ""


def _number(folder: Path) -> int:
    number = folder.name.partition("-")[0]
    return int(number) if number.isdigit() else 0


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
