"""What a run tells of itself: its options, what made it, and what it came to."""

import json
import logging
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from gan_zoo.callbacks import Metrics
from gan_zoo.data import InMemoryDataModule
from gan_zoo.files import atomic_write, read_json, remove_partial_files
from gan_zoo.run.configuration import names_in
from gan_zoo.run.events import truncate_logs
from gan_zoo.run.folder import shown
from gan_zoo.run.resume import FOLLOWS_FILE, leaders
from gan_zoo.training.module import AdversarialModule
from gan_zoo.training.reporting import report_figures

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"
_VERSIONS_OF = ("gan_zoo", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf")


def begin_session(folder: Path, config: DictConfig, data: InMemoryDataModule, step: int) -> None:
    """Writes what makes this session, and takes back what was logged after the iteration.

    Raises:
        ValueError: if the data is not what the session before had.
    """
    saved = folder / ".hydra"
    for place in (folder, saved, folder / "checkpoints", folder / "samples"):
        remove_partial_files(place)
    provenance = folder / "provenance.json"
    if not config.resume.folder:
        # Of a session that was killed before there was a run to resume.
        provenance.unlink(missing_ok=True)
    _write_provenance(provenance, config, data)
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


def _write_provenance(path: Path, config: DictConfig, data: InMemoryDataModule) -> None:
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
                "torch": torch.__version__,
                **{name: version(name) for name in _VERSIONS_OF},
            },
            "device": device or platform.machine(),
            "threads": torch.get_num_threads(),
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
        others = [key for key in ("versions", "device", "threads") if before[key] != now[key]]
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


def print_configuration(config: DictConfig) -> None:
    """The whole configuration as a tree."""
    tree = Tree("configuration")

    def grow(branch: Tree, node: Any) -> None:
        for key, value in sorted(node.items(), key=lambda item: item[0] != "_target_"):
            if isinstance(value, dict):
                grow(branch.add(Text(str(key), style="bold")), value)
            else:
                branch.add(Text(f"{key}: {value}"))

    grow(tree, OmegaConf.to_container(config, resolve=True))
    Console().print(tree)


def hparams(config: DictConfig) -> dict[str, Any]:
    """The columns of TensorBoard's table of runs."""
    columns = {
        "batch_size": config.dataset.batch_size,
        "image_size": config.dataset.get("image_size", 0),
        "max_steps": config.trainer.max_steps,
    }
    if config.get("tags"):
        columns["tags"] = " ".join(names_in(config.tags))
    for key, value in config.model.items():
        if str(key).startswith("optimizer_"):
            columns[f"lr_{str(key).removeprefix('optimizer_')}"] = value.lr
        elif isinstance(value, (str, int, float)) and not str(key).startswith("_"):
            columns[str(key)] = value
    return columns


def promised_figures(trainer: pl.Trainer, model: AdversarialModule, data: Any) -> Iterable[str]:
    """The tags of the figures that a finished run will have."""
    yield from (f"final/loss_{phase.name}" for phase in model.phases())
    for metrics in _metrics_of(trainer):
        yield from metrics.tags(trainer, data)


def monitored(trainer: pl.Trainer) -> float | None:
    """The best of the figure that Metrics monitors; None where it was never measured."""
    return next((metrics.best for metrics in _metrics_of(trainer)), None)


def _metrics_of(trainer: pl.Trainer) -> list[Metrics]:
    return [c for c in trainer.callbacks if isinstance(c, Metrics)]  # type: ignore[attr-defined]


class Result(pl.Callback):
    """Writes ``metrics.json`` when training ends: what the run is (``about``) and came to."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about
        self._before: dict[str, float] = {}
        self._seconds_before = 0.0
        self._started = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer = trainer
        self._started = time.perf_counter()
        if trainer.is_global_zero:
            # A damaged one is noticed before anything is trained.
            read_json(self.folder / METRICS_FILE, dict)

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
        final = {
            name.replace("train/", "final/"): value
            for name, value in values.items()
            if name.startswith("train/loss_")
        }
        report_figures(trainer.loggers, final, trainer.global_step)
        for metrics in _metrics_of(trainer):
            values |= metrics.measured | metrics.floors
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
    """What a finished run came to, in four lines."""
    result = json.loads((folder / METRICS_FILE).read_text())
    runs = next((path for path in folder.parents if path.name == "runs"), folder)
    scores = "  ".join(
        f"{name.rpartition('/')[2]} {result[name]:.3f}"
        for name in ("train/loss_d", "train/loss_g", "train/d_real", "train/d_fake", "metrics/fid")
        if name in result
    )
    print(
        f"Run     {shown(folder)}\n"
        f"Trained {result['steps']} steps, {result['images_seen']:,} images of "
        f"{result['dataset']} in {result['seconds'] / 60:.1f} min\n"
        f"Scored  {scores}\n"
        f"Look    tensorboard --logdir {shlex.quote(shown(runs))}"
    )
