"""What a run tells of itself: its options, what made it, and what it came to."""

from __future__ import annotations

import json
import logging
import platform
import re
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

import gan_zoo
from gan_zoo.callbacks import Metrics
from gan_zoo.console import say
from gan_zoo.data import InMemoryDataModule
from gan_zoo.files import CONFIG_DIR, atomic_write, read_json, remove_partial_files
from gan_zoo.run.configuration import as_listed, as_typed, column_name, names_in
from gan_zoo.run.events import truncate_logs
from gan_zoo.run.folder import RUNS, look, shown
from gan_zoo.run.resume import FOLLOWS_FILE, Begun, begun, leaders
from gan_zoo.training.module import AdversarialModule
from gan_zoo.training.reporting import Pages, report_hparams, report_pages, report_text

if TYPE_CHECKING:
    from gan_zoo.run.build import Run

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"
PROVENANCE_FILE = "provenance.json"
# Options of a session, and where things are; tags have a column of their own.
_NOT_COMPARED = ("logger", "paths", "resume", "tags", "trust")
_MOST_BLOCKS = 1000
_VERSIONS_OF = ("torchvision", "pytorch-lightning", "hydra-core", "omegaconf")


def begin_session(
    folder: Path, config: DictConfig, data: InMemoryDataModule, step: int, precision: str
) -> None:
    """Writes what makes this session, and takes back what was logged after the iteration.

    Args:
        folder: the run's.
        config: the run's.
        data: what it trains on.
        step: the iteration that a resumed run has come to; -1 for a new one.
        precision: in which it computes.

    Raises:
        ValueError: if the data is not what the session before had.
    """
    saved = folder / ".hydra"
    for place in (folder, saved, folder / "checkpoints", folder / "samples"):
        remove_partial_files(place)
    provenance = folder / PROVENANCE_FILE
    if not config.resume.folder:
        # Of a session that was killed before there was a run to resume.
        provenance.unlink(missing_ok=True)
    _write_provenance(provenance, config, data, precision)
    if config.resume.folder:
        truncate_logs(folder, step)
    kept = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    kept.resume.folder = None
    files: dict[str, Any] = {"config.yaml": kept}
    if not config.resume.folder:
        hydra = HydraConfig.get()
        # The configuration comes last: with it there is a run to resume.
        files = {
            "hydra.yaml": OmegaConf.create({"hydra": hydra}),
            "overrides.yaml": hydra.overrides.task,
            # Resolved, an option does not say what it follows from.
            FOLLOWS_FILE: OmegaConf.create(leaders(config)),
            **files,
        }
    for name, content in files.items():
        with atomic_write(saved / name) as aside:
            OmegaConf.save(content, aside)


def _write_provenance(
    path: Path, config: DictConfig, data: InMemoryDataModule, precision: str
) -> None:
    sessions = [session for session in read_json(path, list) if isinstance(session, dict)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    sessions.append(
        {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": sys.argv,
            "git_commit": _git("rev-parse", "HEAD"),
            "git_changed_files": len((_git("status", "--porcelain") or "").splitlines()),
            "versions": {
                "python": platform.python_version(),
                # Also where the package is not installed but lies in the working folder.
                "gan_zoo": gan_zoo.__version__,
                "torch": torch.__version__,
                **{name: version(name) for name in _VERSIONS_OF},
            },
            "device": device or platform.machine(),
            "threads": torch.get_num_threads(),
            "precision": precision,
            "seed": config.seed,
            "tags": names_in(config.get("tags")),
            "dataset": {"name": data.name, "sha256": data.checksum()},
        }
    )
    for before, now in pairwise(sessions[-2:]):
        before = now | before
        if before["dataset"] != now["dataset"] and "dataset" not in names_in(config.resume.allow):
            raise ValueError(
                f"The data of {data.name} is not what the run was trained on before. "
                "resume.allow=[dataset] resumes it all the same."
            )
        same = ("versions", "device", "threads", "precision")
        others = [key for key in same if before[key] != now[key]]
        if others:
            log.warning(
                "The run is resumed with other %s than before (provenance.json): the rest of it "
                "may differ in the last bits from an uninterrupted run.",
                " and ".join(others),
            )
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(sessions, indent=2) + "\n")


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def print_start(config: DictConfig, about: Mapping[str, Any], run: pl.Trainer, step: int) -> None:
    """What is trained, and what was chosen for it, in a few lines; in a sweep in one.

    Args:
        config: the run's; with print_config=full all of it is printed too.
        about: model, dataset and seed.
        run: the trainer, of whose root folder the run is.
        step: the iteration that a resumed run has come to; -1 for a new one.
    """
    hydra, folder = HydraConfig.get(), Path(run.default_root_dir)
    if config.print_config == "full":
        _print_tree(config)
    steps = f"{run.max_steps:,} iterations"
    if step > 0:
        steps = f"iterations {step:,} to {run.max_steps:,}"
    if run.max_steps < 0:
        # An epoch's length is not known yet.
        steps = "iterations without end" if run.max_epochs == -1 else f"{run.max_epochs} epochs"
    several = f"{run.world_size} processes on " if run.world_size > 1 else ""
    what = (
        f"{about['model']} on {about['dataset']}: {steps}, batch {config.dataset.batch_size}, "
        f"{several}{run.strategy.root_device}, seed {about['seed']}"
    )
    if hydra.mode == RunMode.MULTIRUN:
        if hydra.job.num == 0:
            print(look(folder.parent), flush=True)
        say(f"Job     {folder.name}: {what}")
        return
    resumed = config.resume.folder
    typed = begun(folder).overrides if resumed else as_listed(hydra.overrides.task)  # type: ignore[arg-type]
    around = ("model=", "dataset=", "resume.")
    given = [as_typed(o) for o in typed if not o.startswith(around)]
    hint = "" if config.print_config == "full" else " (print_config=full shows all options)"
    say(
        f"Train   {what}\n"
        f"Given   {' '.join(given) or 'nothing but defaults'}{hint}\n"
        f"Folder  {shown(folder)}"
    )


def _print_tree(config: DictConfig) -> None:
    tree = Tree("configuration")

    def grow(branch: Tree, node: Any) -> None:
        for key, value in sorted(node.items(), key=lambda item: item[0] != "_target_"):
            if isinstance(value, dict):
                grow(branch.add(Text(str(key), style="bold")), value)
            else:
                branch.add(Text(f"{key}: {value}"))

    grow(tree, OmegaConf.to_container(config, resolve=True))
    Console().print(tree)


def report_start(run: Run, config: DictConfig, resumed: bool) -> None:
    """Logs what a run is: its options, what was typed when it was begun, what its charts show."""
    start = begun(run.folder)
    columns, settings = hparams(run, config, start), run.about | _settings(config)
    loggers = run.trainer.loggers
    report_hparams(loggers, columns, settings)
    if resumed:
        # truncate_logs has made room for the texts; elsewhere they still are.
        loggers = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
    lines = "".join(f"    {override}\n" for override in start.overrides)
    report_text(loggers, "run/overrides", lines or "Nothing was typed.", 0)
    rows = "".join(f"| {key} | {value} |\n" for key, value in (settings | columns).items())
    report_text(loggers, "run/settings", f"| option | value |\n|---|---|\n{rows}", 0)
    report_pages(loggers, pages(run))


def hparams(run: Run, config: DictConfig, start: Begun) -> dict[str, bool | float | str]:
    """The columns of the table of runs, by short names.

    They are the model, the dataset, and what was typed; of a sweep's job, what was swept. Seed and
    learning rates are left out where they are the same in all of a sweep.
    """
    overrides = OverridesParser.create().parse_overrides(start.own)
    columns: dict[str, Any] = {}
    for override in overrides:
        key = (override.package or override.key_or_group).replace("/", ".")
        if key.partition(".")[0] in _NOT_COMPARED:
            continue
        value = OmegaConf.select(config, key)
        if value is None or OmegaConf.is_dict(value):
            # A group's choice.
            value = override.value()
        columns[column_name(key)] = value
    if not start.swept:
        columns["seed"] = config.seed
    if not start.swept or any(
        (CONFIG_DIR / override.key_or_group).is_dir() for override in overrides
    ):
        columns |= {
            column_name(f"model.{key}.lr"): option.lr
            for key, option in config.model.items()
            if str(key).startswith("optimizer_")
        }
    if config.get("tags"):
        columns["tags"] = " ".join(names_in(config.tags))
    columns |= {key: run.about[key] for key in ("model", "dataset")}
    return {
        key: value if isinstance(value, (bool, int, float, str)) else _in_words(value)
        for key, value in columns.items()
    }


def _in_words(value: Any) -> str:
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return "null" if plain is None else str(plain)


def _settings(config: DictConfig) -> dict[str, Any]:
    """What else a reader wants to know of a run first."""
    model = {key: value for key, value in config.model.items() if not str(key).startswith("_")}
    networks = {
        key: value._target_.rpartition(".")[2]
        for key, value in model.items()
        if key in ("generator", "discriminator") and OmegaConf.is_dict(value)
    }
    return {
        "batch_size": config.dataset.batch_size,
        "image_size": config.dataset.get("image_size", 0),
        "max_steps": config.trainer.max_steps,
        **networks,
        **{key: value for key, value in model.items() if isinstance(value, (str, int, float))},
    }


def pages(run: Run) -> Pages:
    """The charts that tell a run's story, for Custom Scalars: the first page, and the details."""
    model, data = run.model, run.data
    figures = [f for metrics in _metrics_of(run.trainer) for f in metrics.figures(model, data)]
    return {
        "Overview": {
            "losses": ["train/loss_"],
            "outputs of the discriminator": ["train/d_(real|fake|wrong)$"],
            **{
                f"{figure} and its floor": [rf"metrics(_floor)?/{figure}(_[ab])?$"]
                for figure in figures
            },
        },
        "Details": {"gradient norms": ["train/grad_norm_"], "learning rates": ["train/lr_"]},
    }


def monitored(trainer: pl.Trainer) -> float | None:
    """The best of the figure that Metrics monitors; None where it was never measured."""
    return next((metrics.best for metrics in _metrics_of(trainer)), None)


def _metrics_of(trainer: pl.Trainer) -> list[Metrics]:
    return [c for c in trainer.callbacks if isinstance(c, Metrics)]  # type: ignore[attr-defined]


class Result(pl.Callback):
    """Writes ``metrics.json`` when training ends: what the run is (``about``) and came to.

    Its ``iteration_ms`` is the median, over blocks of iterations from one logging to the next, of
    what an iteration took in this session.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about
        self._before: dict[str, float] = {}
        self._seconds_before = 0.0
        self._started = time.perf_counter()
        self._blocks: deque[float] = deque(maxlen=_MOST_BLOCKS)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer = trainer
        self._started = time.perf_counter()
        self._block = trainer.global_step, self._started
        if trainer.is_global_zero:
            # A damaged one is noticed before anything is trained.
            read_json(self.folder / METRICS_FILE, dict)

    def on_train_batch_end(self, trainer: pl.Trainer, *unused: Any) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # Logging has waited for the device.
        if every and trainer.global_step % every == 0:
            (step, begun), self._block = self._block, (trainer.global_step, time.perf_counter())
            self._blocks.append(1000 * (self._block[1] - begun) / (self._block[0] - step))

    def state_dict(self) -> dict[str, Any]:
        return {"logged": self._logged(), "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = dict(state_dict["logged"])
        self._seconds_before = state_dict["seconds"]

    def _logged(self) -> dict[str, float]:
        """The last value of all that was logged, in earlier sessions too."""
        now = {
            name: float(value)
            for name, value in self._trainer.callback_metrics.items()
            if name != "step"
        }
        return self._before | now

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def on_train_end(self, trainer: pl.Trainer, pl_module: AdversarialModule) -> None:  # type: ignore[override]
        if not trainer.is_global_zero:
            return
        values = self._logged()
        for metrics in _metrics_of(trainer):
            values |= metrics.measured | metrics.floors | metrics.reached
            if metrics.best is not None:
                values[f"best/{metrics.monitor}"] = metrics.best
                values["best/step"] = metrics.best_step
        path = self.folder / METRICS_FILE
        # A run that is trained for longer keeps what evaluate.py measured of its earlier end.
        before = read_json(path, dict)
        result = {
            **self.about,
            "steps": trainer.global_step,
            **pl_module.counts,
            "seconds": round(self._seconds(), 1),
            **({"iteration_ms": round(statistics.median(self._blocks), 3)} if self._blocks else {}),
            **{
                name: value
                for name, value in values.items()
                if name.removeprefix("train/") not in pl_module.counts
            },
        }
        if "evaluation" in before:
            result["evaluation"] = before["evaluation"]
        with atomic_write(path) as aside:
            aside.write_text(json.dumps(result, indent=2) + "\n")


def print_summary(folder: Path) -> None:
    """What a finished run came to, in five lines at most; in a sweep in one."""
    result = json.loads((folder / METRICS_FILE).read_text())
    seconds = result["seconds"]
    took = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
    trained = f"{result['steps']:,} steps"
    losses = "  ".join(
        f"{name.rpartition('/')[2]} {result[name]:.3f}"
        for name in ("train/loss_d", "train/loss_g", "train/d_real", "train/d_fake")
        if name in result
    )
    figure, hydra = _monitored_in_words(result), HydraConfig.get()
    sweeps = hydra.mode == RunMode.MULTIRUN
    if figure and not (sweeps and hydra.job.num):
        figure += ", by the evaluator of gan_zoo, which is not Inception"
    if sweeps:
        say(f"Done    {folder.name}: {figure or losses}, {trained} in {took}")
        return
    runs = next((path for path in folder.parents if path.name == RUNS.name), folder)
    lines = [
        f"Run     {shown(folder)}",
        f"Trained {trained}, {result['images_seen']:,} images of {result['dataset']} in {took}",
        f"Losses  {losses}",
        f"Scored  {figure}",
        look(runs),
    ]
    say("\n".join(line for line in lines if figure or not line.startswith("Scored")))


def _monitored_in_words(result: Mapping[str, Any]) -> str:
    """``fid 12.3 (floor 0.9; best 11.8 at step 4,000)``; "" where nothing was measured."""
    bests = [name.partition("/")[2] for name in result if name.startswith("best/")]
    name = next((name for name in bests if name != "step"), "")
    value, best = result.get(f"metrics/{name}"), result.get(f"best/{name}")
    if value is None:
        return ""
    # Of two domains' mean, as the figure is.
    floors = [v for k, v in result.items() if re.fullmatch(f"metrics_floor/{name}(_[ab])?", k)]
    notes = [f"floor {statistics.mean(floors):.3g}"] if floors else []
    if best != value:
        notes.append(f"best {best:.3g} at step {result['best/step']:,}")
    return f"{name} {value:.3g}" + (f" ({'; '.join(notes)})" if notes else "")
