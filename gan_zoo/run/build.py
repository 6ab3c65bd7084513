"""From a configuration to the model, data and trainer of a run."""

from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.plugins.environments import SLURMEnvironment

from gan_zoo.callbacks import Checkpoint
from gan_zoo.data import InMemoryDataModule
from gan_zoo.ranges import within
from gan_zoo.run.checks import bare_trainer
from gan_zoo.run.configuration import dataset_title, names_in
from gan_zoo.run.folder import find_checkpoint
from gan_zoo.run.report import Result
from gan_zoo.run.speed import Mathematics, mathematics
from gan_zoo.training.checkpoints import CheckpointFiles
from gan_zoo.training.module import AdversarialModule
from gan_zoo.training.untrusted import keywords_of


class Run(NamedTuple):
    """What a configuration builds.

    Attributes:
        model, data, trainer: ready for ``trainer.fit(model, data)``.
        about: model, dataset and seed, by which people know the run.
        folder: the run's.
        mathematics: how it computes.
    """

    model: AdversarialModule
    data: InMemoryDataModule
    trainer: pl.Trainer
    about: dict[str, Any]
    folder: Path
    mathematics: Mathematics


def build(config: DictConfig, folder: Path, step: int = -1) -> Run:
    """The model, data and trainer of a configuration.

    Args:
        config: as train's, checked.
        folder: the run's.
        step: the iteration that a resumed run has come to; -1 for a new one.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data: InMemoryDataModule = instantiate(config.dataset)
    data.order_seed = config.seed
    model: AdversarialModule = instantiate(config.model)
    model.config = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    model.trust = names_in(config.trust)
    chosen = mathematics(config, lambda: bare_trainer(config).strategy.root_device)
    chosen.prepare(model)
    with within("model"):
        # Their options are checked by building them.
        model.configure_optimizers()
    # One paper to a file: the file's name is the model's.
    name = type(model).__module__.rpartition(".")[2]
    about = {"model": name, "dataset": dataset_title(config.dataset), "seed": config.seed}
    callbacks = [instantiate(item) for item in (config.get("callbacks") or {}).values() if item]
    if not config.trainer.enable_progress_bar:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    trainer: pl.Trainer = instantiate(
        config.trainer,
        default_root_dir=str(folder),
        logger=_loggers(config, folder, step) or False,
        callbacks=[*callbacks, Result(folder, about)],
        plugins=[CheckpointFiles(), *_cluster()],
        # The data module shares its data out among ranks itself.
        use_distributed_sampler=False,
        # Lightning would add a checkpoint callback of its own where there is none.
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        **chosen.trainer,
        _convert_="all",
    )
    return Run(model, data, trainer, about, folder, chosen)


def _cluster() -> list[SLURMEnvironment]:
    """SLURM, where it started this process, without Lightning's own way to requeue a job.

    That has checkpoints of its own, and may come on top of submitit's.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def _loggers(config: DictConfig, folder: Path, step: int) -> list[Logger]:
    """The loggers; a TensorBoard that is open drops what was logged after the iteration.

    Raises:
        ValueError: if one would write outside the run's folder.
    """
    loggers = []
    for key, item in (config.get("logger") or {}).items():
        if item:
            kind = get_class(item._target_)
            purges = step >= 0 and issubclass(kind, TensorBoardLogger)
            options = {"save_dir": str(folder)} if "save_dir" in keywords_of(kind) else {}
            logger = instantiate(item, **options, **({"purge_step": step + 1} if purges else {}))
            place = getattr(logger, "log_dir", None)
            if place and not Path(place).resolve().is_relative_to(folder.resolve()):
                raise ValueError(
                    f"logger.{key} would write into '{place}', outside of the run's folder: leave "
                    "its name and version as they are."
                )
            loggers.append(logger)
    return loggers


def begin_with(model: AdversarialModule, path: str) -> None:
    """Gives a new model the networks of another run; its optimizers and iterations are new.

    ``path`` is a checkpoint or a run's folder. ValueError if it has other networks.
    """
    try:
        model.begin_with(find_checkpoint(path)[1])
    except RuntimeError as error:
        raise ValueError(
            f"init_from={path}: that run's networks are others than this {type(model).__name__}'s; "
            "its options model and dataset have to be the same but for how it trains."
        ) from error
