"""A sweep's job, in the sweep's own process or in one that its launcher has started."""

import copy
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from gan_zoo.files import atomic_write
from gan_zoo.run.configuration import dataset_name, known_datasets
from gan_zoo.run.folder import shown
from gan_zoo.run.resume import (
    Resumed,
    changes_of,
    is_longer,
    kept_configuration,
    refuse_ways_out,
    resumed_configuration,
)

# The sweeper whose jobs several processes share.
SEARCH = "gan_zoo.search.Search"
# In the folder of a job that failed.
REASON_FILE = "error.txt"
# In a sweep's folder, once it is interrupted.
STOP_FILE = ".stop"
_TERMINATED = 128 + signal.SIGTERM
_SECONDS_BETWEEN_LOOKS = 0.2


class SweptJob:
    """What a sweep's process tells those that its launcher starts, which get it pickled.

    Attributes:
        process: the sweep's.
        folder: the sweep's, where a launcher's processes end with the sweep; None where they don't.
        threads: torch's, in each job; None for what it takes by itself.
        datasets: as ``known_datasets``.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.folder: Path | None = None
        self.threads: int | None = None
        self.datasets: dict[Any, str] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a job, which is interrupted as by SIGTERM when its sweep is, or its queue says so.

        Raises:
            SystemExit: then, at once if the job has not begun.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        known_datasets.update(self.datasets)
        if os.getpid() == self.process:
            yield
            return
        if self.folder is None:
            with _requeued():
                yield
            return
        watch = _Watch.of(self.process)
        # A terminal's Ctrl-C reaches all its processes: the sweep's alone answers.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        signal.signal(signal.SIGTERM, watch.interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        if self.is_interrupted():
            raise SystemExit(_TERMINATED)
        try:
            watch.job = self
            yield
        finally:
            watch.job = None
            if watch.is_orphan():
                os._exit(_TERMINATED)

    def is_interrupted(self) -> bool:
        """Whether its sweep is."""
        return self.folder is not None and (self.folder / STOP_FILE).exists()


@contextmanager
def _requeued() -> Iterator[None]:
    """Around a job in a cluster's queue, which is left to it: saves before it is stopped.

    SIGTERM ends the job after its iteration; the queue, which sends it, begins it anew or not. For
    SIGUSR2, which comes before a time limit and when another job needs the place, submitit has a
    handler that puts the job back into the queue: it is called once the job has saved.
    """
    if "SLURM_CPUS_PER_TASK" in os.environ and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(int(os.environ["SLURM_CPUS_PER_TASK"]))
    requeue: Any = signal.getsignal(signal.SIGUSR2)
    asked: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    def end_and_requeue(number: int, frame: FrameType | None) -> None:
        if not asked:
            asked.append(number)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    if callable(requeue):
        signal.signal(signal.SIGUSR2, end_and_requeue)
    try:
        yield
    except SystemExit:
        if asked:
            requeue(asked[0], None)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGUSR2, requeue)


class _Watch(threading.Thread):
    """Interrupts the job of a launcher's process when its sweep is interrupted or gone.

    With the sweep's process this one goes too, once there is no job.
    """

    _running: "_Watch | None" = None

    @classmethod
    def of(cls, sweep: int) -> "_Watch":
        if cls._running is None:
            cls._running = cls(sweep)
            cls._running.start()
        return cls._running

    def __init__(self, sweep: int) -> None:
        super().__init__(daemon=True)
        self.sweep, self.parent = sweep, os.getppid()
        self.job: SweptJob | None = None

    def run(self) -> None:
        told = None
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            job, orphan = self.job, self.is_orphan()
            if job is None and orphan:
                os._exit(_TERMINATED)
            if job is not None and job is not told and (orphan or job.is_interrupted()):
                # Once: a second one would end it before its iteration is over.
                told = job
                os.kill(os.getpid(), signal.SIGTERM)

    def is_orphan(self) -> bool:
        try:
            os.kill(self.sweep, 0)
        except ProcessLookupError:
            return True
        return os.getppid() != self.parent

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.job is not None:
            raise SystemExit(_TERMINATED)


def searches(hydra: Any) -> bool:
    """Whether a sweeper, from Hydra's node, chooses values by what the jobs before came to."""
    return not hydra.sweeper._target_.endswith(".BasicSweeper")


def as_a_job(config: DictConfig) -> DictConfig:
    """Has a configuration measure at the same steps whatever the machine does; changes it."""
    for callback in (config.get("callbacks") or {}).values():
        if OmegaConf.is_dict(callback) and "max_share" in callback:
            callback.max_share = None
    return config


def resolved(config: DictConfig) -> DictConfig:
    """A job's configuration as its folder would have it."""
    config = as_a_job(copy.deepcopy(config))
    OmegaConf.set_struct(config, False)
    OmegaConf.resolve(config)
    config.dataset.name = dataset_name(config.dataset)
    return config


def continued(config: DictConfig, folder: Path) -> DictConfig:
    """A job's configuration; of a run that is in its folder already it is that run's own.

    Raises:
        ValueError: if it is another run.
    """
    (folder / REASON_FILE).unlink(missing_ok=True)
    config = as_a_job(config)
    kept = kept_configuration(folder)
    if kept is None:
        return config
    refuse_another(folder, kept, resolved(config))
    refuse_ways_out(folder)
    config.resume.folder = str(folder)
    steps = f"trainer.max_steps={config.trainer.max_steps}"
    return resumed_configuration(config, Resumed(folder, [steps]))


def refuse_another(folder: Path, kept: dict[str, Any], config: DictConfig) -> None:
    """Raises ValueError if a folder's run is not the one of this configuration, or a part of it."""
    changed = changes_of(kept, config, folder)
    if is_longer(changed):
        del changed["trainer.max_steps"]
    if changed:
        options = ", ".join(f"{key} is {a} there and {b} here" for key, (a, b) in changed.items())
        raise ValueError(
            f"'{shown(folder.absolute())}' holds a run of another configuration: {options}. "
            "Another hydra.sweep.dir begins a new sweep."
        )


def write_reason(folder: Path, reason: str) -> None:
    """Leaves the reason why a job failed in its folder."""
    with atomic_write(folder / REASON_FILE) as aside:
        aside.write_text(f"{reason}\n")
