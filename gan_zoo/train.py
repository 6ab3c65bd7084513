"""One training run, from a composed configuration to a folder that holds everything about it."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

import gan_zoo
from gan_zoo.callbacks import Checkpoint, Metrics
from gan_zoo.checkpoint import (
    CheckpointFiles,
    begin_with,
    find_checkpoint,
    refuse_foreign_code,
    saved_in,
)
from gan_zoo.cli import dataset_name, dataset_title, dotted, names_in
from gan_zoo.data import InMemoryDataModule
from gan_zoo.events import truncate_logs
from gan_zoo.files import atomic_write, remove_partial_files
from gan_zoo.models.base import AdversarialModule
from gan_zoo.options import refuse_unfit_options, refuse_unless_whole

log = logging.getLogger(__name__)

_VERSIONS_OF = ("torchvision", "pytorch-lightning", "hydra-core", "omegaconf")
_LOCK = ".lock"


def train(config: DictConfig) -> None:
    """Trains as configured and writes the run folder.

    Args:
        config: conf/train.yaml, composed; with ``resume.folder`` that run's own configuration.

    Raises:
        ValueError: for a choice that can't work, before anything is trained; the run folder is
            removed again if this run made it.
        SystemExit: after Ctrl-C or SIGTERM, with 128 and the signal's number.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    first_process = os.environ.get("LOCAL_RANK", "0") == "0"
    with _claimed(folder, bool(config.resume.folder)) if first_process else nullcontext():
        _train(config, folder, first_process)


def _train(config: DictConfig, folder: Path, first_process: bool) -> None:
    made_here = {path.name for path in folder.iterdir()} <= {
        _LOCK,
        f"{HydraConfig.get().job.name}.log",
    }
    trainer: pl.Trainer | None = None
    checkpoint, step = None, -1
    try:
        if config.resume.folder:
            checkpoint, step = _checkpoint_to_go_on_from(config, folder)
        _refuse_what_cannot_work(config)
        if 0 <= config.trainer.max_steps <= step:
            print(
                f"The run has its {step:,} iterations already. It goes on with a larger "
                "trainer.max_steps."
            )
            return
        _refuse_data_that_does_not_fit(config)
        _use_available_dataset(config)
        if first_process:
            _print_tree(config)
        pl.seed_everything(config.seed, workers=True, verbose=False)
        datamodule: InMemoryDataModule = instantiate(config.dataset)
        datamodule.order_seed = config.seed
        model: AdversarialModule = instantiate(config.model)
        model.config = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        model.configure_optimizers()
        if config.init_from and not checkpoint:
            begin_with(model, config.init_from)
        callbacks = _listed(config.get("callbacks"))
        if not config.trainer.enable_progress_bar:
            callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
        datamodule.setup()
        # One paper to a file: the file's name is the model's.
        name = type(model).__module__.rpartition(".")[2]
        about = {"model": name, "dataset": dataset_title(config.dataset), "seed": config.seed}
        trainer = instantiate(
            config.trainer,
            logger=_loggers(config, step) or False,
            callbacks=[*callbacks, _Result(folder, about)],
            plugins=[CheckpointFiles()],
            # The data module shares its data out itself.
            use_distributed_sampler=False,
            # Lightning would add a checkpoint callback of its own where there is none.
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            _convert_="all",
        )
        if first_process:
            _begin_session(folder, config, datamodule, step)
        if not checkpoint:
            _log_hparams(trainer, model, datamodule, {**about, **_hyperparameters(config)})
        trainer.fit(
            model, datamodule, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=True
        )
        if trainer.is_global_zero:
            _print_summary(folder, json.loads((folder / _Result.FILE).read_text()))
    except (KeyboardInterrupt, SystemExit) as interruption:
        # Lightning ends the process on Ctrl-C, after its callbacks.
        ended_by = next((c.ended_by for c in _of_kind(trainer, Checkpoint) if c.ended_by), None)
        if not first_process:
            # What ends the first process ends the others; they have nothing to say of it.
            raise SystemExit(0) from interruption
        if saved_in(folder):
            print(f"Interrupted. Go on with: {_command_to_go_on(folder)}")
        elif made_here:
            _remove(folder)
        raise SystemExit(128 + (ended_by or signal.SIGINT)) from interruption
    except Exception as error:
        if first_process and trainer and saved_in(folder):
            # A run that diverged would do so again.
            error.add_note(
                f"What was good is kept in {_shown(saved_in(folder)[0])}."
                if isinstance(error, ArithmeticError)
                else f"What was saved is kept. Go on with: {_command_to_go_on(folder)}"
            )
        elif first_process and made_here and (trainer is None or trainer.global_step == 0):
            _remove(folder)
        raise


def _remove(folder: Path) -> None:
    logging.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _command_to_go_on(folder: Path) -> str:
    return f"python scripts/train.py resume={_shown(folder)}"


@contextmanager
def _claimed(folder: Path, resumed: bool) -> Iterator[None]:
    """Keeps the folder for this run alone.

    Raises:
        ValueError: if another run is at work there, or a new one would mix with what is there.
    """
    holds_a_run = any((folder / name).exists() for name in (".hydra", "checkpoints"))
    # Loader processes of a run that was killed hold its lock until they notice.
    lock = FileLock(folder / _LOCK, timeout=10 if resumed else 0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"'{_shown(folder)}' is in use by another run: wait for its end, or give another "
            "hydra.run.dir."
        ) from None
    try:
        if holds_a_run and not resumed:
            raise ValueError(
                f"'{_shown(folder)}' holds a run already: resume={_shown(folder)} goes on with it, "
                "another hydra.run.dir begins a new one."
            )
        yield
    finally:
        lock.release()


def _checkpoint_to_go_on_from(config: DictConfig, folder: Path) -> tuple[Path | None, int]:
    """A run's latest whole checkpoint and its iteration; None and -1 where it has to begin again.

    Raises:
        ValueError: if all its checkpoints are damaged, or its configuration would run foreign code
            or differs from what the checkpoint was trained with.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    refuse_foreign_code(plain, "The run's configuration", names_in(config.trust), run=True)
    if saved_in(folder):
        file, checkpoint = find_checkpoint(folder)
        before, step = checkpoint["config"], checkpoint["global_step"]
    else:
        file, step = None, -1
        before = OmegaConf.to_container(
            OmegaConf.load(folder / ".hydra" / "config.yaml"), resolve=True
        )
    changed = _changed(before, config)
    old, new = changed.get("trainer.max_steps", (0, 0))
    if isinstance(new, int) and (new == -1 or new > old >= 0):
        del changed["trainer.max_steps"]
    allowed = names_in(config.resume.allow)
    refused = [
        key for key in changed if not any(key == a or key.startswith(f"{a}.") for a in allowed)
    ]
    if refused:
        changes = ", ".join(f"{key} from {changed[key][0]} to {changed[key][1]}" for key in refused)
        raise ValueError(
            f"The run goes on as it was configured, which this would change: {changes}. "
            f"resume.allow=[{','.join(refused)}] permits it; trainer.max_steps may be raised."
        )
    return file, step


def _changed(before: Mapping[str, Any], config: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value before, value now) of what was set and differs.

    What follows from other options, the environment or the folder's place is left out.
    """
    skipped = ("resume", "trust", "init_from")

    def flat(node: Any) -> dict[str, Any]:
        return {
            key: value
            for key, value in dotted(node)
            if not isinstance(value, dict) and key.partition(".")[0] not in skipped
        }

    old, now = flat(before), flat(OmegaConf.to_container(config, resolve=True))
    written = flat(OmegaConf.to_container(config, resolve=False))
    # Options of which an older version of this package knew nothing.
    roots = set(before)
    return {
        key: (old.get(key), now.get(key))
        for key in sorted(old.keys() | now.keys())
        if old.get(key) != now.get(key)
        and key.partition(".")[0] in roots
        and "${" not in str(written.get(key))
    }


def _begin_session(
    folder: Path, config: DictConfig, datamodule: InMemoryDataModule, step: int
) -> None:
    """Writes what makes this session, and takes back what was logged after the iteration."""
    _write_provenance(folder, config, datamodule)
    if config.resume.folder:
        for place in (folder, folder / ".hydra", folder / "checkpoints"):
            remove_partial_files(place)
        truncate_logs(folder, step)
    saved = folder / ".hydra"
    kept = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    kept.resume.folder = None
    with atomic_write(saved / "config.yaml") as aside:
        OmegaConf.save(kept, aside)
    if not config.resume.folder:
        hydra = HydraConfig.get()
        OmegaConf.save(OmegaConf.create({"hydra": hydra}), saved / "hydra.yaml")
        OmegaConf.save(hydra.overrides.task, saved / "overrides.yaml")


def _loggers(config: DictConfig, step: int) -> list[Logger]:
    """The loggers; a TensorBoard that is open forgets what was logged after the iteration."""
    loggers = []
    for item in (config.get("logger") or {}).values():
        if item:
            cuts = step >= 0 and issubclass(get_class(item._target_), TensorBoardLogger)
            loggers.append(instantiate(item, **({"purge_step": step + 1} if cuts else {})))
    return loggers


def _log_hparams(
    trainer: pl.Trainer,
    model: AdversarialModule,
    datamodule: InMemoryDataModule,
    hyperparameters: dict[str, Any],
) -> None:
    """Logs the options; the table of runs only shows figures that it was promised with them."""
    promised = {f"final/loss_{phase.name}": math.nan for phase in model.phases()}
    for callback in _of_kind(trainer, Metrics):
        promised |= dict.fromkeys(callback.tags(trainer, datamodule), math.nan)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(hyperparameters, promised)
        else:
            logger.log_hyperparams(hyperparameters)


_Kind = TypeVar("_Kind", bound=pl.Callback)


def _of_kind(trainer: pl.Trainer | None, kind: type[_Kind]) -> list[_Kind]:
    callbacks = trainer.callbacks if trainer else []  # type: ignore[attr-defined]
    return [c for c in callbacks if isinstance(c, kind)]


class _Result(pl.Callback):
    """Writes what the run came to, in the process that trained."""

    FILE = "metrics.json"

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about
        self._earlier: dict[str, float] = {}
        self._seconds = 0.0
        self._begun = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer = trainer
        self._begun = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"figures": self._figures(), "seconds": self._spent()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier = dict(state_dict["figures"])
        self._seconds = state_dict["seconds"]

    def _figures(self) -> dict[str, float]:
        """What was logged last, also before an interruption."""
        now = {
            name: float(value)
            for name, value in self._trainer.callback_metrics.items()
            if name != "step"
        }
        return self._earlier | now

    def _spent(self) -> float:
        return self._seconds + time.perf_counter() - self._begun

    def on_train_end(self, trainer: pl.Trainer, pl_module: AdversarialModule) -> None:  # type: ignore[override]
        if not trainer.is_global_zero:
            return
        scored = self._figures()
        final = {
            name.replace("train/", "final/"): value
            for name, value in scored.items()
            if name.startswith("train/loss_")
        }
        for logger in trainer.loggers:
            logger.log_metrics(final, trainer.global_step)
        for callback in _of_kind(trainer, Metrics):
            scored |= callback.measured
            if callback.best is not None:
                scored[f"best/{callback.monitor}"] = callback.best
                scored["best/step"] = callback.best_step
        path = self.folder / self.FILE
        # What scripts/evaluate.py measured of an earlier part of the run.
        before = json.loads(path.read_text()) if path.exists() else {}
        metrics = {
            **self.about,
            "steps": trainer.global_step,
            **pl_module.counts,
            "seconds": round(self._spent(), 1),
            **{
                name: value
                for name, value in scored.items()
                if name.removeprefix("train/") not in pl_module.counts
            },
        }
        if "evaluation" in before:
            metrics["evaluation"] = before["evaluation"]
        with atomic_write(path) as aside:
            aside.write_text(json.dumps(metrics, indent=2) + "\n")


def _refuse_what_cannot_work(config: DictConfig) -> None:
    trainer = config.trainer
    for option, value, lowest in (
        ("seed", config.seed, 0),
        ("trainer.max_steps", trainer.max_steps, -1),
        ("trainer.log_every_n_steps", trainer.log_every_n_steps, 0),
    ):
        refuse_unless_whole(option, value, lowest)
    refuse_unfit_options(config)
    strategy, devices = str(trainer.strategy), _device_count(trainer.devices)
    if trainer.accelerator in ("gpu", "cuda") and max(devices, 1) > torch.cuda.device_count():
        raise ValueError(
            f"trainer.devices={trainer.devices} of accelerator {trainer.accelerator}: this machine "
            f"has {torch.cuda.device_count()} GPUs. trainer=default takes what is there."
        )
    plain = strategy in ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")
    if plain or (strategy == "auto" and devices > 1):
        raise ValueError(
            f"trainer.strategy={strategy} on several devices fails for a GAN, whose players take "
            "turns: use ddp_find_unused_parameters_true, as trainer=multi_gpu and ddp_cpu do."
        )
    starts_scripts = strategy.startswith("ddp_find")
    if starts_scripts and devices != 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ValueError(
            f"Under a multirun, the processes that trainer.strategy={strategy} starts would each "
            "begin the sweep anew: use ddp_spawn_find_unused_parameters_true, or one device a job."
        )


def _refuse_data_that_does_not_fit(config: DictConfig) -> None:
    model: type[AdversarialModule] = get_class(config.model._target_)
    takes = getattr(model, "batch_types", None)
    gives = getattr(get_class(config.dataset._target_), "batch_type", None)
    if takes is None or gives is None or gives in takes:
        return
    sources = HydraConfig.get().runtime.config_sources
    folder = Path(next(s.path for s in sources if s.provider == "main")) / "dataset"
    fitting = [
        file.stem
        for file in sorted(folder.glob("*.yaml"))
        if getattr(get_class(_target(file)), "batch_type", None) in takes
    ]
    raise ValueError(
        f"{model.__name__} does not train on {gives.__name__} batches, which this dataset has: "
        f"dataset={', '.join(fitting)} would do."
    )


def _target(file: Path) -> str:
    """The class that a configuration file, or the one that it begins with, names."""
    config = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(config, dict)
    return config.get("_target_") or _target(file.with_name(f"{config['defaults'][0]}.yaml"))


def _device_count(devices: Any) -> int:
    """How many devices Lightning's option asks for: -1 for all that there are."""
    if OmegaConf.is_list(devices):
        return max(devices, default=-1) + 1
    text = str(devices)
    if text == "auto":
        return -1
    if "," in text:
        return max(int(index) for index in text.split(",") if index) + 1
    if not re.fullmatch(r"-1|[1-9]\d*", text):
        raise ValueError(
            f"trainer.devices is {text}; it has to be a number from 1, -1 for all, a list or auto."
        )
    return int(text)


def _use_available_dataset(config: DictConfig) -> None:
    """Has the configuration name the dataset that is trained on."""
    name = dataset_name(config.dataset)
    if name == config.dataset.name:
        return
    if config.resume.folder:
        raise ValueError(
            f"The run was trained on {config.dataset.name}, which is not to be had now; it does "
            f"not go on with {name}."
        )
    config.dataset.name = name


def _listed(node: DictConfig | None) -> list[Any]:
    return [instantiate(item) for item in (node or {}).values() if item]


def _print_tree(config: DictConfig) -> None:
    tree = Tree("configuration")

    def grow(branch: Tree, node: Any) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                grow(branch.add(Text(str(key), style="bold")), value)
            else:
                branch.add(Text(f"{key}: {value}"))

    grow(tree, OmegaConf.to_container(config, resolve=True))
    Console().print(tree)


def _hyperparameters(config: DictConfig) -> dict[str, Any]:
    """The columns of TensorBoard's table of runs."""
    columns = {
        "batch_size": config.dataset.batch_size,
        "image_size": config.dataset.get("image_size", 0),
        "max_steps": config.trainer.max_steps,
    }
    for key, value in config.model.items():
        if str(key).startswith("optimizer_"):
            columns[f"lr_{str(key).removeprefix('optimizer_')}"] = value.lr
        elif isinstance(value, (str, int, float)) and not str(key).startswith("_"):
            columns[str(key)] = value
    return columns


def _write_provenance(folder: Path, config: DictConfig, datamodule: InMemoryDataModule) -> None:
    """Adds this session to ``provenance.json``: a run that was resumed has several.

    Raises:
        ValueError: if the data is not what the session before had.
    """
    path = folder / "provenance.json"
    sessions = json.loads(path.read_text()) if path.exists() else []
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    sessions.append(
        {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": sys.argv,
            "git_commit": _git("rev-parse", "HEAD"),
            "git_changed_files": len((_git("status", "--porcelain") or "").splitlines()),
            "versions": {
                "gan_zoo": gan_zoo.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                **{name: version(name) for name in _VERSIONS_OF},
            },
            "device": device or platform.machine(),
            "threads": torch.get_num_threads(),
            "seed": config.seed,
            "dataset": {"name": datamodule.name, "sha256": datamodule.checksum()},
        }
    )
    for before, now in pairwise(sessions[-2:]):
        if before["dataset"] != now["dataset"] and "dataset" not in names_in(config.resume.allow):
            raise ValueError(
                f"The data of {datamodule.name} is not what the run was trained on before. "
                "resume.allow=[dataset] goes on with it all the same."
            )
        others = [key for key in ("versions", "device", "threads") if before[key] != now[key]]
        if others:
            log.warning(
                "The run goes on with other %s than before (provenance.json): what follows may "
                "differ in the last bits from what it would have been.",
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


def _print_summary(folder: Path, metrics: dict[str, Any]) -> None:
    runs = next((path for path in folder.parents if path.name == "runs"), folder)
    scores = "  ".join(
        f"{name.rpartition('/')[2]} {metrics[name]:.3f}"
        for name in ("train/loss_d", "train/loss_g", "train/d_real", "train/d_fake", "metrics/fid")
        if name in metrics
    )
    minutes = metrics["seconds"] / 60
    print(
        f"Run     {_shown(folder)}\n"
        f"Trained {metrics['steps']} steps, {metrics['images_seen']:,} images of "
        f"{metrics['dataset']} in {minutes:.1f} min\n"
        f"Scored  {scores}\n"
        f"Look    tensorboard --logdir {_shown(runs)}"
    )


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
