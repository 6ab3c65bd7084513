"""A search: runs are the trials of an Optuna study, which says what to try next.

The study's storage is all that processes share. Each asks it for values, trains a run with them,
and tells what it came to; a run that its process left unfinished is taken over and resumed.
"""

import json
import socket
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write

from gan_zoo.callbacks import Pruning
from gan_zoo.files import atomic_write, read_json
from gan_zoo.ranges import Count, NonNegative, Seed, UnfitArgument, checked
from gan_zoo.run.configuration import looking_in
from gan_zoo.run.folder import shown
from gan_zoo.run.job import SEARCH
from gan_zoo.run.report import METRICS_FILE

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

# Names of a trial's attributes, and of the study's.
_FOLDER, _HOST, _SEEN, _PRUNED, _UNCOUNTED, _REASON = (
    "folder", "host", "seen", "pruned at", "not counted", "reason",
)  # fmt: skip
_SEARCH = "search"
_SECONDS_BETWEEN_LOOKS = 5
# If so many trials fail before any succeeds, all would.
_MOST_FAILURES = 3


class Search(Sweeper):
    """Hydra's sweeper in conf/hydra/sweeper/study.yaml, which describes its options.

    Several processes may have one, at a time or after each other, on the same study:

    - A process holds a lock in the search's folder while it trains a trial. A trial that is not
      finished and whose lock is free was left: who takes the lock resumes its run.
    - A trial on another machine, whose lock file can't be seen from here, counts as lost if it
      was not measured for a long time; its values are tried again.
    - Trials are counted by their numbers, which the storage gives out once. If two processes ask
      for the last one, the one with the higher number gives it back.
    """

    @checked
    def __init__(
        self,
        n_trials: Count,
        storage: str | None,
        objectives: DictConfig | None,
        space: DictConfig,
        sampler: str,
        sampler_options: DictConfig | None,
        seed: Seed,
        pruner: str | None,
        pruner_options: DictConfig | None,
        lost_after_minutes: NonNegative,
    ) -> None:
        self.n_trials = n_trials
        self.storage = storage
        self.objectives: dict[str, str] = _plain(objectives) or {}
        self.space = {key: str(values) for key, values in _plain(space).items()}
        self.sampler, self.sampler_options = sampler, _plain(sampler_options)
        self.pruner, self.pruner_options = pruner, _plain(pruner_options)
        self.seed = seed
        self.lost_after = 60 * lost_after_minutes

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """See Hydra's Sweeper."""
        if config.hydra.runtime.choices["hydra/launcher"] != "basic":
            raise ValueError(
                "hydra/launcher: a search trains one run at a time; the same command in another "
                "process, or in a job of a cluster, takes part in it."
            )
        self.folder = Path(config.hydra.sweep.dir)
        self.jobs: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Trains trials until the study has enough, then draws what it found.

        Raises:
            ValueError: if the study is of another search, or no trial succeeds.
        """
        fixed, space = divided(arguments, self.space)
        if not space:
            raise ValueError(
                "There is nothing to search: give values, such as model.n_critic=1,2, or a space, "
                "as search=learning_rates."
            )
        study = self._study(fixed, space)
        waits = False
        while len(self._counted(study, finished=True)) < self.n_trials:
            trial = self._left_trial(study) or self._new_trial(study, space)
            if trial is None:
                if not waits:
                    print("All trials are begun; waiting for those of other processes.", flush=True)
                waits = True
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                continue
            try:
                self._train(study, trial.number, fixed, space)
            finally:
                trial.lock.release()
        _draw(study, self.folder)
        print(_best(study, self.objectives))

    def _study(self, fixed: Sequence[str], space: Mapping[str, "Dimension"]) -> "Study":
        optuna = _optuna()
        directions = list(self.objectives.values())
        for key, direction in self.objectives.items():
            if direction not in ("minimize", "maximize"):
                raise UnfitArgument("objectives", f"has {key}: {direction}; minimize or maximize.")
        if not self.objectives:
            directions = ["maximize" if self.jobs.higher_is_better() else "minimize"]
        chosen = {"sampler": self._sampler(self.seed), "pruner": self._pruner()}
        url = _address(self.storage, self.folder)
        (self.folder / ".locks").mkdir(exist_ok=True)
        with self._asking():
            study = optuna.create_study(
                storage=_storage(url, self.folder),
                study_name=self.folder.name,
                directions=directions,
                load_if_exists=True,
                **chosen,
            )
            asked = {
                "given": sorted(fixed),
                "space": {key: dimension.text for key, dimension in space.items()},
                "objectives": self.objectives,
            }
            if (known := study.user_attrs.get(_SEARCH, asked)) != asked:
                differs = [
                    f"{key} was {known[key]} and is {asked[key]}"
                    for key in asked
                    if known[key] != asked[key]
                ]
                raise ValueError(
                    f"'{shown(self.folder.absolute())}' holds another search: "
                    f"{'; '.join(differs)}. Another study=NAME begins a new one."
                )
            study.set_user_attr(_SEARCH, asked)
        return study

    def _sampler(self, seed: int) -> Any:
        samplers, options = _optuna().samplers, self.sampler_options
        with _told("sampler"):
            return _named("sampler", self.sampler, samplers)(**{"seed": seed} | options)

    def _pruner(self) -> Any:
        pruners, options = _optuna().pruners, self.pruner_options
        if self.pruner is None:
            return pruners.NopPruner()
        if self.pruner == "MedianPruner":
            options = {"n_warmup_steps": 1000} | options
        with _told("pruner"):
            return _named("pruner", self.pruner, pruners)(**options)

    def _asking(self) -> FileLock:
        """Held by the one process of this folder that counts trials and asks for one."""
        return FileLock(self.folder / ".locks" / "ask")

    def _counted(self, study: "Study", finished: bool = False) -> list["FrozenTrial"]:
        """The trials that count: of those that began, or that are finished."""
        states = _optuna().trial.TrialState
        trials = study.get_trials(deepcopy=False)
        return [
            trial
            for trial in trials
            if _UNCOUNTED not in trial.user_attrs
            and trial.state != states.WAITING
            and (trial.state.is_finished() or not finished)
        ]

    def _left_trial(self, study: "Study") -> "_Taken | None":
        """A trial whose process is gone, locked; one that is lost is marked so."""
        states = _optuna().trial.TrialState
        for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            lock = FileLock(self.folder / ".locks" / str(trial.number))
            elsewhere = trial.user_attrs.get(_HOST, socket.gethostname()) != socket.gethostname()
            if elsewhere and not Path(lock.lock_file).exists():
                if time.time() - trial.user_attrs.get(_SEEN, 0) > self.lost_after:
                    self._give_back(study, trial.number, "lost with its machine")
                    study.enqueue_trial(trial.params)
                continue
            with suppress(Timeout):
                lock.acquire(timeout=0)
                if _kept(study, trial.number).state == states.RUNNING:
                    return _Taken(trial.number, lock)
                lock.release()
        return None

    def _new_trial(self, study: "Study", space: Mapping[str, "Dimension"]) -> "_Taken | None":
        with self._asking():
            if len(self._counted(study)) >= self.n_trials:
                return None
            number = len(study.get_trials(deepcopy=False))
            # Of its own for each trial, so that a search that was interrupted draws as another.
            about = f"{self.seed} {number} {socket.gethostname()}".encode()
            study.sampler = self._sampler(zlib.crc32(about))
            trial = study.ask({key: dimension.values for key, dimension in space.items()})
            lock = FileLock(self.folder / ".locks" / str(trial.number))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                # Another process has found it in the meantime.
                return None
        trial.set_user_attr(_HOST, socket.gethostname())
        trial.set_user_attr(_SEEN, time.time())
        counted = [other.number for other in self._counted(study)]
        if trial.number in counted[self.n_trials :]:
            # On machines that share no disk, two processes have asked for the last one.
            self._give_back(study, trial.number, "one too many")
            lock.release()
            return None
        return _Taken(trial.number, lock)

    def _give_back(self, study: "Study", number: int, reason: str) -> None:
        states = _optuna().trial.TrialState
        _trial(study, number).set_user_attr(_UNCOUNTED, reason)
        study.tell(number, state=states.FAIL, skip_if_finished=True)

    def _train(
        self,
        study: "Study",
        number: int,
        fixed: Sequence[str],
        space: Mapping[str, "Dimension"],
    ) -> None:
        """Trains a trial's run, or what is left of it, and tells the study."""
        states = _optuna().trial.TrialState
        trial = _trial(study, number)
        chosen = [
            f"{key}={dimension.written(trial.params[key])}" for key, dimension in space.items()
        ]
        if _PRUNED not in trial.user_attrs:
            with Pruning.reporting(partial(self._report, trial)):
                (done,) = self.jobs.launch([[*fixed, *chosen]], number)
            folder = next(reversed(self.jobs.asked))
            trial.set_user_attr(_FOLDER, folder.name)
            try:
                values = self._values(done, folder)
            # Of a job that failed: the reason.
            except Exception as error:
                trial.set_user_attr(_REASON, str(error))
                study.tell(number, state=states.FAIL)
                self._refuse_to_fail_on(study, str(error))
                return
        if _PRUNED in trial.user_attrs:
            study.tell(number, state=states.PRUNED)
        else:
            study.tell(number, values)

    def _values(self, done: Any, folder: Path) -> list[float]:
        value: float = done.return_value
        if not self.objectives:
            return [value]
        result = read_json(folder / METRICS_FILE, dict)
        missing = [key for key in self.objectives if key not in result]
        if missing:
            known = ", ".join(key for key, known in result.items() if isinstance(known, float))
            raise ValueError(f"objectives: a run has no {missing[0]}; it has {known}.")
        return [result[key] for key in self.objectives]

    def _report(self, trial: "Trial", step: int, figure: float) -> bool:
        trial.set_user_attr(_SEEN, time.time())
        # Several objectives are not pruned, nor others than what is reported.
        if self.objectives or self.pruner is None:
            return False
        # A resumed run measures again what it had measured after its checkpoint.
        if step not in _kept(trial.study, trial.number).intermediate_values:
            trial.report(figure, step)
        if trial.should_prune():
            trial.set_user_attr(_PRUNED, step)
            print(f"Trial {trial.number} is ended at iteration {step:,}: others were better there.")
            return True
        return False

    def _refuse_to_fail_on(self, study: "Study", reason: str) -> None:
        states = _optuna().trial.TrialState
        finished = self._counted(study, finished=True)
        if len(finished) >= _MOST_FAILURES and all(t.state == states.FAIL for t in finished):
            raise ValueError(f"The first {len(finished)} trials failed. The last: {reason}")


@contextmanager
def searching() -> Iterator[None]:
    """Lets Hydra's sweeper be ``Search``: Hydra takes plugins of packages of theirs alone."""
    make = Plugins.instantiate_sweeper

    def instantiate_sweeper(self: Plugins, *, config: DictConfig, **others: Any) -> Sweeper:
        options = config.hydra.sweeper
        if options._target_ != SEARCH:
            return make(self, config=config, **others)
        search = Search(**{key: options[key] for key in options if key[0] != "_"})
        with looking_in(config), read_write(config.hydra.sweep):
            config.hydra.sweep.dir = str(config.hydra.sweep.dir)
        search.setup(config=config, **others)
        return search

    Plugins.instantiate_sweeper = instantiate_sweeper  # type: ignore[method-assign]
    try:
        yield
    finally:
        Plugins.instantiate_sweeper = make  # type: ignore[method-assign]


class _Taken(NamedTuple):
    """A trial that this process trains, and the lock that says so."""

    number: int
    lock: FileLock


class Dimension(NamedTuple):
    """What an option may be.

    Attributes:
        values: Optuna's description.
        text: as it was given.
        written: a value -> as the command line has it.
    """

    values: "BaseDistribution"
    text: str
    written: Callable[[Any], str]


def divided(
    arguments: Sequence[str], space: Mapping[str, str]
) -> tuple[list[str], dict[str, Dimension]]:
    """What holds for all trials, and what is searched, of a command line and a space's file.

    An option of the command line takes the place of the space's.

    Raises:
        ValueError: for values that can't be searched.
    """
    parser = OverridesParser.create()
    typed = parser.parse_overrides(list(arguments))
    fixed = [str(o.input_line) for o in typed if not o.is_sweep_override()]
    searched = [o for o in typed if o.is_sweep_override()]
    given = {o.get_key_element().lstrip("+~") for o in typed}
    searched += [
        parser.parse_override(f"{key}={values}")
        for key, values in space.items()
        if key not in given
    ]
    return fixed, {override.get_key_element(): _dimension(override) for override in searched}


def _dimension(override: Override) -> Dimension:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    sweep, text = override.value(), str(override.input_line).partition("=")[2]
    key = override.get_key_element()
    logarithmic = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        if sweep.start > sweep.end or (logarithmic and sweep.start <= 0):
            expected = "from above 0 " if logarithmic else ""
            raise ValueError(f"{key}={text}: it has to go {expected}to a larger number.")
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind: Any = IntDistribution if whole else FloatDistribution
        return Dimension(kind(sweep.start, sweep.end, log=logarithmic), text, repr)
    if isinstance(sweep, RangeSweep) and not sweep.shuffle:
        values = list(override.sweep_iterator())
        if len(values) > 1 and sweep.step > 0:
            kind = IntDistribution if isinstance(values[0], int) else FloatDistribution
            # Hydra's range ends before its end.
            return Dimension(kind(values[0], values[-1], step=sweep.step), text, repr)
    if not override.is_discrete_sweep():
        raise ValueError(f"{key}={text}: that can't be searched; list values, or give an interval.")
    choices = [str(choice) for choice in override.sweep_string_iterator()]
    if not choices:
        raise ValueError(f"{key}={text} has no values.")
    return Dimension(CategoricalDistribution(choices), text, str)


def _trial(study: "Study", number: int) -> "Trial":
    return _optuna().trial.Trial(study, _kept(study, number)._trial_id)


def _kept(study: "Study", number: int) -> "FrozenTrial":
    """A trial as it is in the storage; Optuna would copy all."""
    return study.get_trials(deepcopy=False)[number]


def _address(storage: str | None, folder: Path) -> str:
    address = storage or f"sqlite:///{(folder / 'study.db').absolute()}"
    if address != "journal" and "://" not in address:
        expected = "a database's address, as postgresql://USER@HOST/NAME, or journal"
        raise UnfitArgument("storage", f"is {address}; give {expected}.")
    return address


def _storage(address: str, folder: Path) -> Any:
    storages = _optuna().storages
    if address == "journal":
        # Links are atomic on network disks too, where locks of files may not be.
        file = str(folder / "study.log")
        lock = storages.journal.JournalFileSymlinkLock(file)
        return storages.JournalStorage(storages.journal.JournalFileBackend(file, lock_obj=lock))
    # SQLite waits so long for the others, in seconds.
    options = {"connect_args": {"timeout": 120}} if address.startswith("sqlite") else {}
    return storages.RDBStorage(address, engine_kwargs=options)


def _best(study: "Study", objectives: Mapping[str, str]) -> str:
    names = list(objectives) or ["best"]
    lines = []
    for trial in study.best_trials:
        values = ", ".join(f"{n} {v:.4g}" for n, v in zip(names, trial.values, strict=True))
        chosen = " ".join(f"{key}={value}" for key, value in trial.params.items())
        lines.append(f"Best    trial {trial.number}: {values}, with {chosen}")
    return "\n".join(lines)


def _draw(study: "Study", folder: Path) -> None:
    """Plots of the study as PNG, and for TensorBoard, where its run is called ``study``."""
    complete = _optuna().trial.TrialState.COMPLETE
    if len(study.directions) > 1 or len(study.get_trials(states=(complete,))) < 2:
        return
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots
    from torch.utils.tensorboard import SummaryWriter

    events = folder / "study"
    for file in events.glob("events.out.*"):
        file.unlink()
    with warnings.catch_warnings(), _written(SummaryWriter, events) as writer:
        # Optuna calls these plots experimental.
        warnings.simplefilter("ignore")
        for name, plot in (
            ("history", plots.plot_optimization_history),
            ("importances", plots.plot_param_importances),
            ("parallel", plots.plot_parallel_coordinate),
        ):
            # Of trials that are all alike there are no importances.
            with suppress(ValueError, RuntimeError):
                axes: Any = plot(study)
                figure = axes.figure
                figure.set_size_inches(8, 5)
                with atomic_write(folder / f"{name}.png") as aside:
                    figure.savefig(aside, format="png", bbox_inches="tight")
                writer.add_figure(f"study/{name}", figure)
            plt.close("all")


@contextmanager
def _written(kind: Any, folder: Path) -> Iterator[Any]:
    writer = kind(folder)
    try:
        yield writer
    finally:
        writer.close()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ValueError("A search needs Optuna: pip install 'gan_zoo[search]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _named(option: str, name: str, module: Any) -> Any:
    names = [n for n in module.__all__ if n.lower().endswith(option) and not n.startswith("Base")]
    if name not in names:
        raise UnfitArgument(option, f"is {name}; there are {', '.join(names)}.")
    return getattr(module, name)


@contextmanager
def _told(option: str) -> Iterator[None]:
    """Names the option whose library refuses its options."""
    try:
        with warnings.catch_warnings():
            # Most of what is newer than a year is called experimental.
            warnings.simplefilter("ignore")
            yield
    except (TypeError, AssertionError) as error:
        raise UnfitArgument(f"{option}_options", f"do not fit: {error}.") from error


def _plain(node: DictConfig | None) -> Any:
    return json.loads(json.dumps(OmegaConf.to_container(node, resolve=True))) if node else {}
