"""A sweep: what is left of it to do, what its jobs need before they start, and which failed."""

import json
import re
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import environ
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import torch
from filelock import FileLock, Timeout
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from gan_zoo.callbacks import Metrics
from gan_zoo.console import progress, signals_answered, signals_held
from gan_zoo.data import InMemoryDataModule
from gan_zoo.files import read_json
from gan_zoo.metrics.measures import floor_of
from gan_zoo.metrics.reference import Reference
from gan_zoo.run.configuration import (
    constant_overrides,
    in_quotes,
    known_datasets,
    to_paste,
)
from gan_zoo.run.folder import (
    LOCK_FILE,
    find_checkpoint,
    remove_folder,
    saved_in,
    shown,
    this_command,
)
from gan_zoo.run.job import (
    REASON_FILE,
    SEARCH,
    STOP_FILE,
    SweptJob,
    refuse_another,
    resolved,
    searches,
)
from gan_zoo.run.report import METRICS_FILE
from gan_zoo.run.resume import changes_of, kept_configuration

# What a killed sweep has left at work, in other processes, ends by itself.
_SECONDS_TO_WAIT = 20
_ASKS = "A search goes by the figure that callbacks.metrics monitors"
# Of a dataset's options those that change nothing of what is prepared.
_OF_BATCHES = ("batch_size", "num_workers")


class Sweep(Callback):
    """Hydra's callback in conf/hydra, which is called before the first job."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        constant = ",".join(f"'{key}'" for key in constant_overrides(config.hydra.overrides.task))
        # Each job is composed with these overrides again.
        overrides = config.hydra.overrides.hydra
        with read_write(overrides):
            overrides.append(f"hydra.job.config.override_dirname.exclude_keys=[{constant}]")


class _Composed(NamedTuple):
    """A job: its configuration, Hydra's node included, and as its folder would have it.

    ``resolved`` is None where the job will fail at it.
    """

    config: DictConfig
    resolved: DictConfig | None


class _FilesReadOnce(CachingConfigRepository):
    """The files that each job is composed of; Hydra's own cache is copied for each, and lost."""

    def __deepcopy__(self, memo: object) -> Self:
        return self


class Jobs(Launcher):
    """Hydra's launcher, with what comes before the jobs; Hydra has no callback that knows them.

    A training sweep that is started again in its folder does what is missing there. What its jobs
    need is downloaded, trained and computed once, before they start. Ctrl-C and SIGTERM interrupt
    all that run, and none begins after.

    Attributes:
        folder: the sweep's.
        trains: whether its jobs are training runs.
        asked: each job's folder -> its overrides, of all that were asked for.
        is_over: whether all of these have been run.
        shared: whether other processes may be at work in the folder, on other jobs.

    Raises:
        ValueError: if another process is at work in the folder, unless it is shared.
    """

    def __init__(
        self, launcher: Launcher, job: SweptJob, context: HydraContext, config: DictConfig
    ) -> None:
        self.launcher, self.job, self.context, self.config = launcher, job, context, config
        self.folder = Path(config.hydra.sweep.dir)
        self.trains = config.hydra.job.config_name == "train"
        self.searches = searches(config.hydra)
        self.shared = config.hydra.sweeper._target_ == SEARCH
        self.asked: dict[Path, list[str]] = {}
        self.is_over = False
        self._ended_by: int | None = None
        self._lock: FileLock | None = None
        self._prepared: set[tuple[str, str]] = set()
        loader: Any = context.config_loader
        loader.repository = _FilesReadOnce(loader.repository)
        if self.trains:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = None if self.shared else _locked(self.folder, "sweep")
            (self.folder / STOP_FILE).unlink(missing_ok=True)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Hydra has set the launcher up already."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs a batch of jobs but for those that are finished, which return what they came to.

        Raises:
            ValueError: before any has begun, if there are none, if a job's folder holds another
                run, or if a search has no figure.
            SystemExit: after Ctrl-C or SIGTERM, with 128 and the signal's number.
        """
        self.is_over = False
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if not job_overrides:
            raise ValueError(f"{self._without_values()}: there is nothing to run.")
        before = HydraConfig.instance().cfg
        try:
            jobs = []
            with progress() as stage:
                report = stage("composing jobs")
                for place, asked in enumerate(job_overrides):
                    jobs.append(self._composed(asked, initial_job_idx + place))
                    report((place + 1) / len(job_overrides))
            folders = [self.folder / job.config.hydra.sweep.subdir for job in jobs]
            returns: list[JobReturn | None] = [None] * len(jobs)
            if self.trains:
                folders = folders if self.shared else self._folders(jobs)
                returns = [_finished(*pair) for pair in zip(jobs, folders, strict=True)]
                self._prepare([job for job, done in zip(jobs, returns, strict=True) if not done])
        finally:
            HydraConfig.instance().cfg = before
        self.asked |= {f: list(o) for f, o in zip(folders, job_overrides, strict=True)}
        missing = [place for place, done in enumerate(returns) if not done]
        if missing:
            overrides = [[*job_overrides[p], *self._placed(folders[p])] for p in missing]
            with self._together(len(jobs)):
                found = self.launcher.launch(overrides, initial_job_idx)
            for place, done in zip(missing, found, strict=True):
                returns[place] = done
        self.is_over = True
        return [done for done in returns if done]

    def higher_is_better(self) -> bool:
        """Whether it is, of the figure that the jobs monitor; ValueError where there is none."""
        measured: list[Metrics] = [instantiate(node) for node in _metrics_of(self.config)]
        if not measured:
            raise _NoFigure(f"{_ASKS}: it can't be left out.")
        return measured[0].higher_is_better

    def release(self) -> None:
        """Lets others into the folder."""
        if self._lock:
            self._lock.release()

    def failures(self) -> str:
        """The jobs that failed, each with its reason and what repeats it; "" where none did.

        A sweep of which nothing else is left is removed.
        """
        failed = [folder for folder in self.asked if (folder / REASON_FILE).is_file()]
        lines = []
        for folder in failed:
            reason = " ".join((folder / REASON_FILE).read_text().split())
            alone = shlex.join(filter_overrides(self.asked[folder]))
            lines += [f"{folder.name}: {reason}", f"  Alone: {this_command()} {alone}"]
        files = {path.name for path in self.folder.rglob("*") if path.is_file()}
        if files <= {REASON_FILE, "multirun.yaml", LOCK_FILE}:
            remove_folder(self.folder)
        total = f"{len(failed)} of {len(self.asked)} jobs failed:"
        return "\n  ".join([total, *lines]) if failed else ""

    def command(self, arguments: Sequence[str]) -> str:
        """What goes on with the sweep, which was begun with these arguments."""
        same = [a for a in arguments if not a.startswith("hydra.sweep.dir=")]
        place = to_paste("hydra.sweep.dir", shown(self.folder.absolute()))
        return f"{this_command()} {shlex.join(same)} {place}"

    def _without_values(self) -> str:
        parser = OverridesParser.create()
        typed = parser.parse_overrides(list(self.config.hydra.overrides.task))
        empty = [
            o.input_line
            for o in typed
            if o.is_discrete_sweep() and not list(o.sweep_string_iterator())
        ]
        return f"{' and '.join(map(str, empty))} has no values" if empty else "No job is asked for"

    @signals_held()
    def _composed(self, overrides: Sequence[str], number: int) -> _Composed:
        """A job as the launcher will compose it."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        # What names its folder looks there.
        HydraConfig.instance().set_config(config)
        with read_write(config.hydra):
            config.hydra.sweep.subdir = str(config.hydra.sweep.subdir)
        return _Composed(config, _resolved(config) if self.trains else None)

    def _placed(self, folder: Path) -> list[str]:
        """What gives a job its folder."""
        name = in_quotes(str(folder.relative_to(self.folder)))
        return [f"hydra.sweep.subdir={name}"] if self.trains else []

    @signals_held()
    def _folders(self, jobs: Sequence[_Composed]) -> list[Path]:
        """Each job's folder: one with the same run, another of the same name, or a new one.

        In a larger sweep jobs have other numbers, and with more options other names.

        Raises:
            ValueError: if one of the same name holds another run, or is in use.
        """
        began = {file.parent.parent for file in self.folder.rglob(".hydra/config.yaml")}
        there = began | {p for p in self.folder.glob("[!.]*") if p.is_dir()}
        free = sorted(there - self.asked.keys(), key=str)
        for folder in free:
            if (folder / LOCK_FILE).exists():
                _locked(folder, "run").release()
        kept = {folder: run for folder in free if (run := kept_configuration(folder))}
        asked = [job.resolved for job in jobs]
        names = [job.config.hydra.sweep.subdir for job in jobs]
        found: dict[int, Path] = {}

        def take(place: int, folder: Path) -> None:
            found[place] = folder
            free.remove(folder)

        def of_the_name(place: int) -> list[Path]:
            name = _title(names[place])
            return [f for f in free if _title(str(f.relative_to(self.folder))) == name]

        # Those of the name first, so that few have to be compared.
        for candidates in (of_the_name, lambda place: list(free)):
            for place, config in enumerate(asked):
                if config is None or place in found:
                    continue
                for folder in candidates(place):
                    if folder in kept and not changes_of(kept[folder], config, folder):
                        take(place, folder)
                        break
        numbers = {_number(path.name) for path in (*there, *self.asked)}
        for place, config in enumerate(asked):
            if place in found:
                continue
            if others := of_the_name(place):
                if config is not None and others[0] in kept:
                    refuse_another(others[0], kept[others[0]], config)
                take(place, others[0])
                continue
            name, number = names[place], _number(names[place])
            if number is not None:
                number = next(n for n in range(number, 10**9) if n not in numbers)
                numbers.add(number)
                name = f"{number}-{_title(name)}"
            found[place] = self.folder / name
        return [found[place] for place in range(len(jobs))]

    def _prepare(self, jobs: Sequence[_Composed]) -> None:
        """Data, evaluators and floors of jobs; if it fails, so will the job, and tell the reason.

        Raises:
            ValueError: for a search whose figure will not be measured.
        """
        datasets: dict[str, tuple[InMemoryDataModule, dict[str, Reference]]] = {}
        for job in jobs:
            config = job.resolved
            if config is None:
                continue
            HydraConfig.instance().set_config(job.config)
            try:
                nodes, key = _metrics_of(config), _plain(config.dataset, _OF_BATCHES)
                if (key, str(nodes)) in self._prepared:
                    continue
                self._prepared.add((key, str(nodes)))
                if key not in datasets:
                    data: InMemoryDataModule = instantiate(config.dataset)
                    data.prepare_data()
                    data.setup()
                    datasets[key] = data, {}
                data, references = datasets[key]
                measured: list[Metrics] = [instantiate(node) for node in nodes]
                if self.searches:
                    _refuse_no_figure(config, data, measured)
                for metrics in measured if data.has_classes else ():
                    references.update(references or metrics.references(data))
                    for reference in references.values():
                        for name in metrics.metrics:
                            floor_of(name, reference, metrics.num_samples, metrics.seed)
            except _NoFigure:
                raise
            except Exception:
                continue
        self.job.datasets = dict(known_datasets)

    @contextmanager
    def _together(self, count: int) -> Iterator[None]:
        """Around jobs that share the cores, and end together.

        The number of threads is the same for a job whatever is left to do, as the last bits of what
        is trained depend on it. Processes that are started here do not hear the signals that this
        one hears: it tells them.
        """
        kind, at_once = type(self.launcher).__name__, 0
        if kind == "BasicLauncher":
            at_once = 1
        elif kind == "JoblibLauncher":
            from joblib import effective_n_jobs

            at_once = effective_n_jobs(self.config.hydra.launcher.n_jobs)
        elif kind == "LocalLauncher":
            at_once = count
        if at_once:
            # What the user has set is not shared out; joblib would set MKL's to a share.
            sharers = 1 if environ.get("OMP_NUM_THREADS") else at_once
            self.job.threads = max(1, torch.get_num_threads() // sharers)
        if not self.trains or kind == "BasicLauncher" or not at_once:
            yield
            return
        self.job.folder = self.folder.absolute()
        with signals_answered(self._interrupt) as heard:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
            over = threading.Event()

            def listen() -> None:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
                over.wait()

            listener = threading.Thread(target=listen, daemon=True)
            listener.start()
            try:
                yield
            except Exception:
                if self._ended_by is None:
                    raise
            finally:
                over.set()
                listener.join()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if self._ended_by is not None:
            raise SystemExit(128 + self._ended_by)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._ended_by is not None:
            raise SystemExit(128 + number)
        self._ended_by = number
        (self.folder / STOP_FILE).touch()
        print("\nEnding after the iterations that run; press again to end at once.", flush=True)


class _NoFigure(ValueError):
    pass


def _refuse_no_figure(
    config: DictConfig, data: InMemoryDataModule, measured: Sequence[Metrics]
) -> None:
    """Raises for a search that would have nothing to go by."""
    if not measured:
        raise _NoFigure(f"{_ASKS}: it can't be left out.")
    if not data.has_classes:
        raise _NoFigure(f"{_ASKS}, and {data.title} is not measured, as it has no classes.")
    model = instantiate(config.model)
    for metrics in measured:
        try:
            metrics.measures(data, model)
        except ValueError as error:
            raise _NoFigure(str(error)) from error


@contextmanager
def sweeping() -> Iterator[list[Jobs]]:
    """Has Hydra's launcher be that of ``Jobs``, which are in the list once there is a sweep.

    Its task has a SweptJob, ``swept``.
    """
    begun: list[Jobs] = []
    make = Plugins.instantiate_launcher

    def instantiate_launcher(
        self: Plugins,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> Launcher:
        launcher = make(self, hydra_context, task_function, config)
        begun.append(Jobs(launcher, task_function.swept, hydra_context, config))  # type: ignore[attr-defined]
        return begun[-1]

    validate = Sweeper.validate_batch_is_legal
    Plugins.instantiate_launcher = instantiate_launcher  # type: ignore[method-assign]
    # Jobs compose all before any begins.
    Sweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
    try:
        yield begun
    finally:
        Sweeper.validate_batch_is_legal = validate  # type: ignore[method-assign]
        Plugins.instantiate_launcher = make  # type: ignore[method-assign]
        for jobs in begun:
            jobs.release()


def _locked(folder: Path, what: str) -> FileLock:
    lock = FileLock(folder / LOCK_FILE, timeout=_SECONDS_TO_WAIT)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"'{shown(folder.absolute())}' is in use by another {what}: wait for its end, or give "
            "another hydra.sweep.dir."
        ) from None
    return lock


def _resolved(job: DictConfig) -> DictConfig | None:
    try:
        return resolved(OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"]))
    except Exception:
        return None


@signals_held()
def _finished(job: _Composed, folder: Path) -> JobReturn | None:
    """What the run in a job's folder came to; None if there is something left to do."""
    result, kept = read_json(folder / METRICS_FILE, dict), kept_configuration(folder)
    if not result or not kept or (folder / REASON_FILE).exists():
        return None
    # It is written after the last iteration, and before the last checkpoint.
    steps = find_checkpoint(folder)[1]["global_step"] if saved_in(folder) else result["steps"]
    if result["steps"] != steps or kept["trainer"]["max_steps"] != job.config.trainer.max_steps:
        return None
    print(f"{shown(folder.absolute())} is finished.")
    monitors = [
        c["monitor"] for c in (kept.get("callbacks") or {}).values() if "monitor" in (c or ())
    ]
    done = JobReturn(overrides=list(job.config.hydra.overrides.task), status=JobStatus.COMPLETED)
    done.return_value = next((result.get(f"best/{monitor}") for monitor in monitors), None)
    return done


def _metrics_of(config: DictConfig) -> list[DictConfig]:
    nodes = [node for node in (config.get("callbacks") or {}).values() if OmegaConf.is_dict(node)]
    return [node for node in nodes if issubclass(get_class(node._target_), Metrics)]


def _plain(node: DictConfig, without: Sequence[str] = ()) -> str:
    plain: Any = OmegaConf.to_container(node)
    return json.dumps({key: value for key, value in plain.items() if key not in without})


def _number(name: str) -> int | None:
    """What a job's name begins with."""
    number = re.match(r"(\d+)-", name)
    return int(number[1]) if number else None


def _title(name: str) -> str:
    """A job's name without its number."""
    return re.sub(r"^\d+-", "", name)
