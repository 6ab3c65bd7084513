"""One training run, from a composed configuration to a folder that holds everything about it."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

import gan_zoo
from gan_zoo.callbacks import Metrics
from gan_zoo.checkpoint import begin_with
from gan_zoo.cli import dataset_label, dataset_name, refuse_unless_whole
from gan_zoo.data import InMemoryDataModule
from gan_zoo.models.base import AdversarialModule

_VERSIONS_OF = ("torchvision", "pytorch-lightning", "hydra-core", "omegaconf")


def train(config: DictConfig) -> None:
    """Trains as configured and writes the run folder.

    Args:
        config: conf/train.yaml, composed.

    Raises:
        ValueError: for a choice that can't work, before anything is trained; the run folder is
            removed again if this run made it.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    first_process = os.environ.get("LOCAL_RANK", "0") == "0"
    fresh = {path.name for path in folder.iterdir()} <= {
        ".hydra",
        f"{HydraConfig.get().job.name}.log",
    }
    trainer: pl.Trainer | None = None
    try:
        _refuse_what_cannot_work(config)
        _refuse_data_that_does_not_fit(config)
        _use_available_dataset(config, folder)
        if first_process:
            _print_tree(config)
        pl.seed_everything(config.seed, workers=True, verbose=False)
        datamodule: InMemoryDataModule = instantiate(config.dataset)
        model: AdversarialModule = instantiate(config.model)
        model.config = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        model.configure_optimizers()
        if config.init_from and not config.resume:
            begin_with(model, config.init_from)
        callbacks = _listed(config.get("callbacks"))
        if not config.trainer.enable_progress_bar:
            callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
        trainer = instantiate(
            config.trainer,
            logger=_listed(config.get("logger")) or False,
            callbacks=callbacks,
            # Lightning would add a checkpoint callback of its own where there is none.
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
            _convert_="all",
        )
        _fit(trainer, model, datamodule, config, folder)
    except (KeyboardInterrupt, SystemExit):
        # Lightning ends the process on Ctrl-C, after its callbacks.
        if first_process and (folder / "checkpoints" / "last.ckpt").exists():
            print(f"Interrupted. Go on with: python scripts/train.py resume={_shown(folder)}")
        raise
    except Exception as error:
        last = folder / "checkpoints" / "last.ckpt"
        if isinstance(error, ArithmeticError) and last.exists():
            raise ArithmeticError(f"{error} What was good is kept in {_shown(last)}.") from error
        if fresh and first_process and (trainer is None or trainer.global_step == 0):
            logging.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _fit(
    trainer: pl.Trainer,
    model: AdversarialModule,
    datamodule: InMemoryDataModule,
    config: DictConfig,
    folder: Path,
) -> None:
    datamodule.setup()
    if trainer.is_global_zero:
        _write_provenance(folder, config, datamodule)
    # One paper to a file: the file's name is the model's.
    name = type(model).__module__.rpartition(".")[2]
    about = {"model": name, "dataset": dataset_label(config.dataset), "seed": config.seed}
    trainer.callbacks.append(_Result(folder, about))  # type: ignore[attr-defined]
    hyperparameters = {**about, **_hyperparameters(config)}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # The table of runs only shows metrics that it was promised at the start.
            promised = {f"final/loss_{phase.name}": math.nan for phase in model.phases()}
            for callback in _metrics_of(trainer):
                promised |= dict.fromkeys(callback.promised(trainer, datamodule), math.nan)
            logger.log_hyperparams(hyperparameters, promised)
        else:
            logger.log_hyperparams(hyperparameters)

    checkpoint = Path(config.resume) / "checkpoints" / "last.ckpt" if config.resume else None
    trainer.fit(model, datamodule, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        metrics = json.loads((folder / _Result.FILE).read_text())
        _print_summary(folder, metrics)


def _metrics_of(trainer: pl.Trainer) -> list[Metrics]:
    return [c for c in trainer.callbacks if isinstance(c, Metrics)]  # type: ignore[attr-defined]


class _Result(pl.Callback):
    """Writes what the run came to, in the process that trained."""

    FILE = "metrics.json"

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: AdversarialModule) -> None:  # type: ignore[override]
        scored = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not trainer.is_global_zero:
            return
        final = {
            name.replace("train/", "final/"): value
            for name, value in scored.items()
            if name.startswith("train/loss_")
        }
        for logger in trainer.loggers:
            logger.log_metrics(final, trainer.global_step)
        for callback in _metrics_of(trainer):
            scored |= callback.figures
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
            "seconds": round(time.perf_counter() - self._begun, 1),
            **{
                name: value
                for name, value in scored.items()
                if name.removeprefix("train/") not in pl_module.counts
            },
        }
        if "evaluation" in before:
            metrics["evaluation"] = before["evaluation"]
        path.write_text(json.dumps(metrics, indent=2) + "\n")


def _refuse_what_cannot_work(config: DictConfig) -> None:
    trainer = config.trainer
    for option, value, lowest in (
        ("seed", config.seed, 0),
        ("trainer.max_steps", trainer.max_steps, -1),
        ("trainer.log_every_n_steps", trainer.log_every_n_steps, 0),
    ):
        refuse_unless_whole(option, value, lowest)
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
    if not text.lstrip("-").isdigit():
        raise ValueError(f"trainer.devices is {text}; it has to be a number, a list or auto.")
    return int(text)


def _use_available_dataset(config: DictConfig, folder: Path) -> None:
    """Has the configuration, also the saved one, name the dataset that is trained on."""
    name = dataset_name(config.dataset)
    if name == config.dataset.name:
        return
    if config.resume:
        raise ValueError(
            f"The run was trained on {config.dataset.name}, which is not to be had now; it does "
            f"not go on with {name}."
        )
    config.dataset.name = name
    saved = folder / ".hydra" / "config.yaml"
    if saved.exists():
        OmegaConf.save(config, saved)


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
    """Adds this session to ``provenance.json``: a run that was resumed has several."""
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
    path.write_text(json.dumps(sessions, indent=2) + "\n")


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
